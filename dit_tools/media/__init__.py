"""Images as files: pixels in and out, what they say about themselves, sheets, videos, previews.

Contract: pixels are numpy float32 ``(H, W, C)`` in [0, 1], C = 1 grey, 3 colour, 4 colour and
straight alpha, in the space of the ICC profile that goes along (sRGB where there is none). Reading
bounds what it takes and raises InputError that names the file; encoding gives bytes, and the caller
writes them whole with ``dit_tools.jobs.atomic``. Nothing here imports torch; numpy, Pillow, OpenCV
and imageio are imported in the functions that use them.

    from dit_tools.media import image, metadata, sheet

    photo = image.read("photo.tif")  # 16 bits, profile, orientation and alpha are kept
    brighter = (photo.pixels * 1.1).clip(0, 1)
    record = {"version": 1, "prompt": "a cat", "seed": 7, "steps": 20, "solver": "euler"}
    content = image.encode(
        brighter, "tiff", bits=16, icc=photo.icc, exif=photo.exif,
        record=record, origin="enhanced",
    )
    metadata.read_record(content)  # the record, from any of the five formats
    metadata.read_parameters("a1111.png")  # the text that A1111 and Civitai know
    both = sheet.contact_sheet([photo.pixels, brighter], labels=["before", "after"])
    image.encode(both, image.format_of("both.jpg"), quality=90)

Modules: ``image`` (read, encode), ``metadata`` (record, A1111 text, provenance), ``sheet``
(contact sheets, grids), ``animation`` (GIF, WebP, MP4), ``terminal_preview``; helpers: ``_decode``
(files to pixels), ``_containers`` (chunks, segments and tags).
"""
