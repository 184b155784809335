"""Times and memory of ModelScope's builtin, of RapidOCR and of this package, alternating in one run.

    python benchmarks/run.py [--only reading,training] [--rounds 15] [--threads 2] [--json FILE] [--markdown]

Sections: reading (official size, against the builtin), family (CRNN and LightweightEdge, against the builtin), embedded
(the embedded model, against RapidOCR), first_text (whole processes), memory (20,000 lines), training (a step, against
the builtin's), operators (where our time goes), scaling (how it grows), decoding (best path, beam, language model).
Tables go to stdout, progress to stderr. All figures are medians, all ratios are pairwise. Exits with 1 if a text
differs in fp32, a loss differs, or memory grows; a promised ratio that the machine misses is only reported.
"""

import importlib
import os

from options import parse
from report import Section, claims_table, facts_table, progress, save_json

os.environ.setdefault("MODELSCOPE_LOG_LEVEL", "40")


def main() -> None:
    options = parse()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch
    from facts import machine

    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # else fp32 on a GPU is not really fp32, and texts cannot be compared
    facts = machine(options.threads, options.device)
    print(facts_table(facts).text(options.markdown), flush=True)
    sections: dict[str, Section] = {}
    for name in options.only:
        progress(f"{name} ...")
        section = importlib.import_module(name).run(options)
        sections[name] = section
        for table in section.tables:
            print(f"\n{table.text(options.markdown)}", flush=True)
        if options.json:
            save_json(options.json, facts, sections)
    claims = [claim for section in sections.values() for claim in section.claims]
    if claims:
        print(f"\n{claims_table(claims).text(options.markdown)}")
    if failed := [claim.what for claim in claims if claim.required and claim.met is False]:
        raise SystemExit(f"not met: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
