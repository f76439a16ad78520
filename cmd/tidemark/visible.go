package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// visible writes what a terminal obeys or hides as \uXXXX: control characters, C1 among them, which some terminals take for
// escape sequences, and those that turn the direction of text or have no width. IDs and events come from strangers. What
// is JSON stays the same JSON, for there such characters stand in strings alone.
func visible(text string) string {
	hidden := func(r rune) bool {
		return r != utf8.RuneError && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
	}
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}
