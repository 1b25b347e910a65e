"""What a frame costs, measured: `vtoonify bench`.

    forms    the plain and the folded networks against each other, in turns: seconds, error, peak memory
    steps    a clip's frame: decode, face, crop, parsing, network, encode; and the whole, in which these overlap
    report   all of it as a dictionary, for JSON, and as a table
"""

from .forms import Subject, build, compare, form_of, measure, peak_memory, setting, subject, table, variants
from .report import as_text, run
from .steps import split

__all__ = ["Subject", "as_text", "build", "compare", "form_of", "measure", "peak_memory", "run", "setting", "split",
           "subject", "table", "variants"]
