"""A watch has no end, and a tester waits for the whole answer. So a watch that would be accepted begins at a place of a table that
is no more: it is told so by a reset, with which the stream ends. Requests that are refused are left as they are."""

import base64
import re

import schemathesis

FORM = re.compile(r"now|[A-Za-z0-9_-]{24,}")
PARTITIONS = 4
GONE = base64.urlsafe_b64encode(
    bytes([1, 1]) + bytes(16) + bytes([PARTITIONS, 0, PARTITIONS]) + bytes(2 * PARTITIONS)
).decode().rstrip("=")


def right(place):
    return not place or isinstance(place, str) and FORM.fullmatch(place)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path != "/v1/watch" or case.method.upper() != "GET":
        return
    last, begin = (case.headers or {}).get("Last-Event-ID"), (case.query or {}).get("from")
    if right(last) and (last or right(begin)):
        case.headers["Last-Event-ID"] = GONE
