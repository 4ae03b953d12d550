"""Streaming: images that keep coming are redrawn as they come (``dit generate --stream``).

After StreamDiffusion (Kodaira et al. 2023, arXiv:2312.12491): frames at different noise levels
share one network call (``batch``), frames that look like the one before are not drawn again
(``similarity``). Frames come from a folder, a video or a pipe (``media.frames``) and go to a folder,
a video or a pipe (``run``).

    batch = StreamBatch(model, conditions, guidance, times, noise)
    for latents in frames:
        done = batch.push(latents)     # the frame of len(times) - 2 ticks ago, or None

Helpers: ``together`` (functions that ask at the same time are answered at the same time).
"""
