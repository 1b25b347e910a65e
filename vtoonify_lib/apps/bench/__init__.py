"""What a frame costs, measured: `vtoonify bench`.

    forms    a network as textbooks write it, as it is trained, folded: in turns, seconds, error, peak memory
    textbook the first of these
    steps    a clip's frame: decode, face, crop, parsing, network, encode; and the whole, in which these overlap
    report   all of it as a dictionary, for JSON, and as a table
"""

from .forms import BenchCase, bench_case, build, compare, form_of, measure, peak_memory, setting, table, variants
from .report import as_text, run
from .steps import split

__all__ = ["BenchCase", "as_text", "bench_case", "build", "compare", "form_of", "measure", "peak_memory", "run",
           "setting", "split", "table", "variants"]
