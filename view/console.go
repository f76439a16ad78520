package view

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strconv"
	"sync"
)

// consoleHTML is the page for people: it looks up IDs and lists those that bear a flag, by the same requests as anybody.
//
//go:embed console.html
var consoleHTML []byte

// consolePolicy lets the page's own script and style run, by their digests, and nothing else, whatever an ID or an event
// may hold.
var consolePolicy = sync.OnceValue(func() string {
	return "default-src 'none'; script-src " + digestOf("script") + "; style-src " + digestOf("style") +
		"; connect-src 'self'; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
})

func digestOf(element string) string {
	_, rest, _ := bytes.Cut(consoleHTML, []byte("<"+element+">"))
	text, _, _ := bytes.Cut(rest, []byte("</"+element+">"))
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func servePage(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(consoleHTML)))
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", consolePolicy())
	_, _ = w.Write(consoleHTML)
	return nil
}
