"""Networks: StyleGAN2, VToonify and our own small parsing and style encoders. Models never open files."""
