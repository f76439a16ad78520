package guard

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// TraceHeader is the header of an answer with the trace id under which the logs have the request.
const TraceHeader = "X-Trace-Id"

// traceOf gives the trace id of a request: that of its traceparent (W3C Trace Context, version 00 and what is like it), or a
// new one where there is none that holds.
func traceOf(h http.Header) string {
	if given := h["Traceparent"]; len(given) == 1 {
		if id, ok := parseTraceparent(given[0]); ok {
			return id
		}
	}
	var id [16]byte // names need not be secret, only different
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	var text [32]byte
	hex.Encode(text[:], id[:])
	return string(text[:])
}

// parseTraceparent reads version-traceid-parentid-flags.
func parseTraceparent(text string) (id string, ok bool) {
	const length = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(text) < length || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return "", false
	}
	version, id, parent, flags := text[:2], text[3:35], text[36:52], text[53:55]
	if version == "ff" || version == "00" && len(text) != length || len(text) > length && text[length] != '-' {
		return "", false
	}
	for _, part := range []string{version, id, parent, flags} {
		if !isHex(part) {
			return "", false
		}
	}
	return id, !isZero(id) && !isZero(parent)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isZero(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
