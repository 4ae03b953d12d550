"""Loading: from a built-in name, a folder, a file or a hub id to a ``models.model.Model``.

``load.load`` is the entry; ``resolve`` finds the files, ``validation`` checks them before any is
opened, and one loader per format (``torch_loader``, ``onnx_loader``, ``gguf_loader``,
``single_file``, ``quantized``, ``lora``) reads them.
"""
