"""VToonify, rebuilt as a workbook: portrait video in, animation out.

Layers, each importing only from those below it (``tests/test_layering.py`` enforces it)::

    cli · panels · notebook · batch   doors: command line, widgets, notebook set-up, whole folders; bench measures
    plotting                          show(), grid(), curves()
    pipeline · training · metrics     Toonifier with looks, styles, recipes and clips; how networks are trained; numbers
    published                         the authors' checkpoints: consent, download, conversion
    synthesis · blending · losses · checkpoints · fast
    models · faces · parsing · video · studio · unpickling · downloads
    ops · devices · flow              convolutions of StyleGAN2; where to compute; optical flow
    latents                           style-layer arithmetic
    config                            sizes and presets
"""
