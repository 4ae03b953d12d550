"""What ``dit quantize`` writes (``--target``): a file is a kind of output.

A target says beforehand what it cannot do (``check``), what it would write (``plan``), and makes it
(``make``): a whole folder that ``dit generate -m`` loads.

    target = spec.parse("formats", "onnx:form=static,provider=cuda")
    wanted = run.Wanted(Path("small"), target.scheme(None))
    facts = target.make(resolve("emoji"), wanted, Trial(), print)
"""
