"""What a frame costs, measured: `vtoonify bench`.

    forms    a network as textbooks write it, as it is trained, folded: in turns, seconds, error, peak memory
    textbook the first of these
    steps    a clip's frame: decode, face, crop, parsing, network, encode; and the whole, in which these overlap
    report   all of it as a dictionary, for JSON, and as a table
"""

from .forms import Subject, build, compare, form_of, measure, peak_memory, setting, subject, table, variants
from .report import as_text, run
from .steps import split

__all__ = ["Subject", "as_text", "build", "compare", "form_of", "measure", "peak_memory", "run", "setting", "split",
           "subject", "table", "variants"]
