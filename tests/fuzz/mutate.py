"""Mutations of JSON documents, of bytes, and of HTTP requests; all from one random source."""

import copy

GARBAGE = (
    None, True, False, 0, 1, -1, 0.5, 1e308, 10**15, 10**30, 10**400, -(10**19), "", "x", "0", "8",
    "-8", "1e999", "NaN", "Infinity", "\x00", "\n", "a" * 600, "训练" * 300, "\ud800", "../..",
    "\udfff\ud800", "<script>", "other", "unknown", "public", float("nan"), float("inf"), [], {},
    [[]], [{}], {"": None}, [None], ["x"], [1, "x", None, {}], {"\ud800": "\ud800"},
    {"a": {"a": {"a": 1}}},
)  # fmt: skip
TOKENS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"null", b"NaN", b"-Infinity", b"1e999", b"-",
    b"\\u", b"\\ud800", b"\\udc00", b"\xff", b"\x00", b"\n", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"9" * 400, b"[" * 70, b"{" * 2000, b"[" * 5000 + b"]" * 5000, b"0,", b"{},", b"\x1f\x8b",
    b'"items":', b'"id":', b'"error_code":"X.1",', b"<html>", b"true", b"0x", b"1_0", b"'",
)  # fmt: skip
_LARGEST = 2**20


def _random_place(document, random):
    """A path, drawn step by step: every level is as likely as the next."""
    path = []
    while isinstance(document, dict | list) and document and random.random() < 0.85:
        if isinstance(document, dict):
            key = random.choice(list(document))
        else:
            key = random.randrange(min(4, len(document)))
        path.append(key)
        document = document[key]
    return path


def mutated_document(document, random):
    """A copy of a document with one to three values replaced, removed, renamed, or repeated."""
    document = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        path = _random_place(document, random)
        if not path:
            return _garbage(random) if random.random() < 0.02 else document
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        _mutate_value(holder, path[-1], random)
    return document


def _garbage(random):
    return copy.deepcopy(random.choice(GARBAGE))


def _mutate_value(holder, key, random):
    value = holder[key]
    what = random.randrange(8)
    if what < 4:
        holder[key] = _garbage(random)
    elif what == 4:
        del holder[key]
    elif what == 5 and isinstance(holder, dict):
        holder[str(key) + random.choice(("", "x", "\ud800"))] = _garbage(random)
    elif what == 6 and isinstance(value, str):
        position = random.randint(0, len(value))
        holder[key] = value[:position] + str(random.choice(GARBAGE)) + value[position:]
    elif isinstance(value, list):
        holder[key] = value * random.choice((2, 10, 100, 100, 2500)) if len(value) < 10 else []
    else:
        holder[key] = [value] * random.choice((1, 2, 70))


def mutated_bytes(data, random, tokens=TOKENS, first=0, last=None):
    """A copy of bytes with one to four changes between two positions."""
    last = len(data) if last is None else last
    for _ in range(random.choice((1, 1, 2, 4))):
        begin = random.randint(first, last)
        end = min(last, begin + random.choice((0, 0, 1, 2, 8, 100)))
        what = random.randrange(6)
        if what == 0:
            new = bytes([random.randrange(256)])
        elif what == 1:
            new = b""
        elif what == 2:
            new = data[begin:end] * random.choice((2, 3, 500))
        elif what == 3:
            start = random.randint(0, len(data))
            new = data[start : start + random.choice((1, 4, 30))]
        else:
            new = random.choice(tokens)
        data = data[:begin] + new + data[end:]
        last = max(first, last + len(new) - (end - begin))
    if random.random() < 0.02:
        data = data[: random.randint(0, len(data))]
    return data[:_LARGEST]


REQUEST_TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b"\x00", b"\xff", b"%", b"%00", b"%zz",
    b"..", b"/", b"//", b"?", b"#", b"HTTP/9.9", b"HTTP/0.9", b"GET", b"A" * 9000, b"\x16\x03",
    b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n",
    b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Host: a\r\n", b"Host: [::1\r\n",
    b"Accept: " + b"a," * 5000 + b"\r\n", b"Accept: */*;q=x\r\n", b"Range: bytes=0-\r\n",
    b"Accept-Encoding: gzip;q=nan\r\n", b"Authorization: Basic !\r\n", b"Cookie: =;=\r\n",
    b"X-Prometheus-Scrape-Timeout-Seconds: -1e999\r\n", b"If-None-Match: *\r\n", b"x: y\r\n" * 100,
)  # fmt: skip
REQUESTS = (
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text; q=1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br;q=0.5\r\nAccept: */*\r\n\r\n",
    b"GET /metrics?name[]=up HTTP/1.0\r\n\r\n",
    b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0\r\nAccept: text/html\r\n\r\n",
    b"GET /?q=failed&phase=Running HTTP/1.1\r\nHost: x\r\nAccept-Language: zh-CN,zh;q=0.9\r\n\r\n",
    b"GET /jobs/r/p/0a1b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nOrigin: http://evil\r\n\r\na=b",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
)


def mutated_request(random):
    """The bytes of one to three requests."""
    requests = [random.choice(REQUESTS) for _ in range(random.choice((1, 1, 1, 2, 3)))]
    return mutated_bytes(b"".join(requests), random, REQUEST_TOKENS)
