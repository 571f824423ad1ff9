"""Fail when a user's type checker would meet an unknown type in the public API.

pyright's own exit code also counts "ambiguous" types: attributes without an annotation whose type
every checker infers from the value they begin with. Those are allowed; an unknown type is not.
"""

import json
import subprocess
import sys

verify = ["--ignoreexternal", "--outputjson", "--verifytypes", "litellm_ledger"]
run = subprocess.run(
    [sys.executable, "-m", "pyright", *verify], stdout=subprocess.PIPE, check=False
)
try:
    found = json.loads(run.stdout)["typeCompleteness"]
except (ValueError, KeyError):
    sys.exit(run.stdout.decode() or f"pyright ended with {run.returncode} and said nothing")

exported = found["exportedSymbolCounts"]
others = found["otherSymbolCounts"]
names = [
    symbol["name"]
    for symbol in found["symbols"]
    if not symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
]
sys.stdout.write(
    f"{found['packageName']}: {exported['withKnownType']} names exported with a known type, "
    f"{exported['withAmbiguousType']} inferred, {exported['withUnknownType']} unknown\n"
)
if not sum(exported.values()) or exported["withUnknownType"] or others["withUnknownType"]:
    sys.exit("\n".join(["A type that a user can see is unknown:", *names]))
