"""What an image says about itself: A1111 ``parameters``, the ``dit`` record, where it came from.

Every image carries three things: (a) the text that A1111, Civitai and their readers know, (b) one
versioned JSON record under the key ``dit`` that ``dit replay`` runs again, (c) IPTC's
DigitalSourceType, which says that a model made the pixels. PNG has text chunks for (a) and (b) and
XMP for (c); JPEG, WebP, TIFF and AVIF have EXIF UserComment for (a) and XMP for (b) and (c).
"""

from __future__ import annotations

import html
import io
import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

from dit_tools.core.errors import DitError, InputError, UsageError
from dit_tools.core.reading import Field, Table, parse_json
from dit_tools.media import _containers as containers

VERSION = 1
RECORD_LIMIT = 1 << 20  # bytes of JSON
_SIDE, _COUNT = Field(int, least=1, most=65536), Field(int, least=1, most=100_000)
RECORD = Table(
    {
        "version": Field(int, least=0, most=10**6, required=True, nullable=False),
        "command": Field(str, most=100),
        "prompt": Field(str),
        "negative_prompt": Field(str),
        "second_prompt": Field(str),
        "seed": Field((int, str), least=0, most=2**63),
        "width": _SIDE,
        "height": _SIDE,
        "steps": _COUNT,
        "cfg_scale": Field(float, least=-1e6, most=1e6),
        "model": Field(str, most=4096),
        "base": Field(str, most=4096),
        "second_model": Field(str, most=4096),
        "lora": Field(list, most=100, item=Field(dict)),
        "versions": Field(dict, most=100, item=Field(str, most=200)),
        **{name: Field(str, most=10_000) for name in ("solver", "schedule", "guidance", "noise", "cache", "dtype")},
    }
)
"""What a record may hold, as far as it is read; ``docs/schema/record.schema.json`` says more."""
ORIGINS = {  # IPTC NewsCodes, https://cv.iptc.org/newscodes/digitalsourcetype
    "generated": "trainedAlgorithmicMedia",
    "composite": "compositeWithTrainedAlgorithmicMedia",
    "enhanced": "algorithmicallyEnhanced",
}
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_BYTE_ORDERS = ("utf-16-be", "utf-16-le")
_EXIF_IFD, _USER_COMMENT, _ORIENTATION = 0x8769, 0x9286, 0x0112
_RECORD = re.compile(r"<dit:record>([^<]*)</dit:record>|\bdit:record\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


def record_json(record: dict[str, Any]) -> str:
    """The record as one line of ASCII JSON; infinite and undefined numbers become null.

    ASCII survives every container and every tool; numbers that JSON does not know (the PSNR of two
    equal images) must not cost a finished image.

    Raises:
        UsageError: no ``"version": 1``, a value that JSON cannot hold, or more than 1 MB.
    """
    if record.get("version") != VERSION:
        raise UsageError(f"a record needs 'version': {VERSION}, not {record.get('version')!r}")
    try:
        text = json.dumps(_finite(record), ensure_ascii=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the record cannot be written as JSON: {error}") from None
    if len(text) > RECORD_LIMIT:
        message = f"the record of the image takes {len(text)} bytes; at most {RECORD_LIMIT}"
        raise UsageError(message, "shorten the prompt")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def parameters_text(record: dict[str, Any]) -> str:
    """The A1111 text of a record: prompt, ``Negative prompt:`` line, ``Steps: 20, Sampler: ...``.

    Keys read, all optional: prompt, negative_prompt, steps, solver, schedule, cfg_scale, seed,
    width, height (pixels), model (a folder is cut off), strength, dit_version. NUL characters go
    and lone surrogates become U+FFFD, since no format holds them.
    """
    width, height = record.get("width"), record.get("height")
    fields = {
        "Steps": record.get("steps"),
        "Sampler": record.get("solver"),
        "Schedule type": record.get("schedule"),
        "CFG scale": record.get("cfg_scale"),
        "Seed": record.get("seed"),
        "Size": f"{width}x{height}" if width and height else None,
        "Model": re.split(r"[/\\]", str(record.get("model") or "").rstrip("/\\"))[-1] or None,
        "Denoising strength": record.get("strength"),
        "Version": record.get("dit_version") and f"dit {record['dit_version']}",
    }
    listed = (f"{name}: {_quoted(value)}" for name, value in fields.items() if value is not None)
    lines = [str(record.get("prompt") or "")]
    if record.get("negative_prompt"):
        lines.append(f"Negative prompt: {record['negative_prompt']}")
    text = "\n".join([*lines, ", ".join(listed)]).rstrip("\n")
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def xmp_packet(content: str, digest: str = "") -> bytes:
    """An XMP packet around RDF properties; ``digest`` names the extended packet that follows it."""
    note = f' xmpNote:HasExtendedXMP="{digest}"' if digest else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' xmlns:dit="urn:dit:record:1"{note}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="r"?>'
    ).encode()


def origin_property(origin: str) -> str:
    """The XMP property DigitalSourceType; origin is a key of ORIGINS (else UsageError)."""
    if origin not in ORIGINS:
        raise UsageError(f"no origin '{origin}'", f"use one of {', '.join(ORIGINS)}")
    tag = "Iptc4xmpExt:DigitalSourceType"
    return f"<{tag}>{_IPTC}{ORIGINS[origin]}</{tag}>"


def record_property(text: str) -> str:
    """The XMP property that holds the JSON record."""
    return f"<dit:record>{html.escape(text, quote=False)}</dit:record>"


def exif_block(original: bytes | None, parameters: str | None) -> bytes:
    """EXIF without its header: the original's tags, upright, with ``parameters`` as UserComment.

    The embedded thumbnail goes, since it would show the image before it was changed. A damaged
    original is left out rather than losing the image.
    """
    from PIL import Image

    exif = Image.Exif()
    if original:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exif.load(original)
                exif.tobytes()
        except Exception:  # Pillow's EXIF parser raises whatever the damage makes it raise
            exif = Image.Exif()
    exif.pop(_ORIENTATION, None)
    if parameters is not None:
        exif[_EXIF_IFD] = {**exif.get_ifd(_EXIF_IFD), _USER_COMMENT: _comment(parameters)}
    return exif.tobytes().removeprefix(containers.EXIF_HEADER) if len(exif) else b""


def read_record(source: str | Path | bytes) -> dict[str, Any] | None:
    """The ``dit`` record of an image file, or None where there is none.

    Args:
        source: a path, or the bytes of the file.

    Raises:
        InputError: unreadable or damaged file, a record over 1 MB, damaged or of a newer version.
    """
    return _record_of(*_open(source))


def read_parameters(source: str | Path | bytes) -> str | None:
    """The A1111 ``parameters`` text of an image file, or None where there is none.

    Where the text did not fit into the file (a JPEG holds 64 kB of EXIF) it is made from the
    ``dit`` record again.

    Raises:
        InputError: unreadable or damaged file, or a text over 1 MB.
    """
    embedded, name = _open(source)
    text = embedded.texts.get("parameters")
    if text is None:
        try:
            record = _record_of(embedded, name)
        except InputError:  # a damaged record does not make the A1111 text unreadable
            record = None
        text = _from_exif(embedded, name, parameters_text(record) if record else None)
    if text is not None and len(text) > RECORD_LIMIT:
        raise InputError(f"{name}: its 'parameters' take over {RECORD_LIMIT} bytes and are refused")
    return text


def read_texts(source: str | Path | bytes) -> dict[str, str]:
    """The texts of a PNG that ComfyUI (``prompt``) and NovelAI (``Comment``) write, by keyword.

    Raises InputError: unreadable or damaged file.
    """
    texts = _open(source)[0].texts
    return {key.decode(): texts[key.decode()] for key in containers.FOREIGN if key.decode() in texts}


def _from_exif(embedded: containers.Embedded, name: str, own: str | None) -> str | None:
    comment = embedded.comment or _user_comment(embedded.exif, name)
    if not comment or (own is not None and comment == _comment(own)):
        return own  # known exactly, without guessing the byte order
    return _comment_text(comment)


def _record_of(embedded: containers.Embedded, name: str) -> dict[str, Any] | None:
    text = embedded.texts.get("dit")
    if text is None:
        match = _RECORD.search(embedded.xmp.decode("utf-8", "replace"))
        text = html.unescape(next(g for g in match.groups() if g is not None)) if match else None
    if text is None:
        return None
    if len(text) > RECORD_LIMIT:
        raise InputError(f"{name}: its 'dit' record takes over {RECORD_LIMIT} bytes and is refused")
    try:
        record = parse_json(text, name, RECORD)
    except InputError as error:
        reason = error.message.removeprefix(f"{name}: ")
        raise InputError(f"{name}: its 'dit' record is damaged: {reason}", "give the options by hand") from None
    if record["version"] > VERSION:
        raise InputError(f"{name}: its 'dit' record is of a newer version", "update dit")
    return record


def _open(source: str | Path | bytes) -> tuple[containers.Embedded, str]:
    name = "the image" if isinstance(source, bytes) else str(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns about damage that it can read over
                return containers.extract(stream), name
    except DitError as error:
        raise InputError(f"{name}: {error.message}", error.hint) from None
    except OSError as error:
        reason = error.strerror or "it is not an image"
        raise InputError(f"{name}: cannot be read: {reason}") from None
    except Exception as error:  # parsers of hostile bytes raise anything; none may reach the user
        raise InputError(f"{name}: damaged image: {error}") from None


def _comment(parameters: str) -> bytes:
    # UTF-16 with the most significant byte first, as piexif (A1111, Civitai) reads it.
    return b"UNICODE\0" + parameters.encode("utf-16-be")


def _user_comment(block: bytes, name: str) -> bytes:
    from PIL import Image

    if not block:
        return b""
    if len(block) > containers.EXIF_LIMIT:
        raise InputError(f"{name}: its EXIF takes over {containers.EXIF_LIMIT} bytes")
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif.load(block)
            comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    except Exception:  # damaged EXIF is common in photographs and says nothing about our record
        return b""
    return comment if isinstance(comment, bytes) else str(comment).encode("utf-8", "replace")


def _comment_text(comment: bytes) -> str | None:
    code, body = comment[:8], comment[8:]
    if code == b"UNICODE\0":
        return _decode_utf16(body)
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        return body.rstrip(b"\0 ").decode("utf-8", "replace") or None
    return comment.decode("utf-8", "replace") or None


def _mostly_ascii(body: bytes) -> bool:
    """Whether more than half of the bytes are ASCII text, which two-byte letters are not."""
    return sum(32 <= byte < 127 or byte in (9, 10, 13) for byte in body) * 2 > len(body)


def _decode_utf16(body: bytes) -> str:
    # EXIF does not say which byte comes first: trust a mark, then the word that every A1111 text
    # holds, then where the zero bytes of Latin letters lie.
    # Some writers put UTF-8 there, which has no zero bytes and spells that word byte by byte.
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "replace")
    if b"Steps: " in body or (b"\0" not in body.rstrip(b"\0") and _mostly_ascii(body)):
        try:
            return body.rstrip(b"\0 ").decode("utf-8")
        except UnicodeDecodeError:
            pass
    big, little = (body.decode(code, "replace").rstrip("\0") for code in _BYTE_ORDERS)
    if "Steps: " in big:
        return big
    return little if "Steps: " in little or body[1::2].count(0) > body[::2].count(0) else big
