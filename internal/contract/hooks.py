"""What a tester that knows nothing but the document has to be told of the service."""

import base64
import re

import schemathesis

PLACE = re.compile(r"now|[A-Za-z0-9_-]{24,}")
PARTITIONS = 4
# A place of a table that is no more, as place.text in view/watchplace.go writes it.
GONE = base64.urlsafe_b64encode(
    bytes([1, 1]) + bytes(16) + bytes([PARTITIONS, 0, PARTITIONS]) + bytes(2 * PARTITIONS)
).decode().rstrip("=")


def right(place):
    return not place or isinstance(place, str) and PLACE.fullmatch(place)


@schemathesis.hook
def before_call(context, case, kwargs):
    """A watch has no end, and the tester waits for the whole answer: one that would be accepted begins at a place that is gone,
    and so ends with a reset. What is to be refused is left as it is."""
    if case.operation.path != "/v1/watch" or case.method.upper() != "GET":
        return
    last, begin = (case.headers or {}).get("Last-Event-ID"), (case.query or {}).get("from")
    if right(last) and (last or right(begin)):
        case.headers["Last-Event-ID"] = GONE


@schemathesis.hook("map_path_parameters").apply_to(path="/v1/flags/{flag}/ids")
def map_path_parameters(context, path_parameters):
    """Every other flag is one that the job has: no tester guesses that."""
    flag = path_parameters.get("flag") if path_parameters else None
    if isinstance(flag, str) and flag and len(flag) % 2 == 0:
        path_parameters["flag"] = "third_failure_10m"
    return path_parameters
