"""VToonify, rebuilt as a workbook: portrait video in, animation out.

Layers, each importing only from those below it (``tests/test_layering.py`` enforces it)::

    cli · panels · notebook           doors: command line, widgets, notebook set-up
    plotting                          show(), grid(), curves()
    pipeline · training · metrics     Toonifier with looks, styles and recipes; how networks are trained; numbers
    published                         the authors' checkpoints: consent, download, conversion
    synthesis · blending · losses · checkpoints · fast
    models · faces · parsing · video · studio · unpickling · downloads
    ops                               convolutions of StyleGAN2
    latents                           style-layer arithmetic
    config                            sizes and presets
"""
