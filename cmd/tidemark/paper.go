package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// widthMax is how wide anything is that is printed for people.
const widthMax = 100

// paper is where a summary is printed: in colour where a person looks and has not asked for none. The first error stays.
type paper struct {
	w      *bufio.Writer
	colour bool
	err    error
}

func newPaper(w io.Writer) *paper {
	return &paper{w: bufio.NewWriter(w), colour: isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p *paper) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil && p.err == nil {
		p.err = fmt.Errorf("print: %w", err)
	}
}

func (p *paper) flush() {
	if err := p.w.Flush(); err != nil && p.err == nil {
		p.err = fmt.Errorf("print: %w", err)
	}
}

func (p *paper) in(code, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *paper) bold(text string) string  { return p.in("1", text) }
func (p *paper) faint(text string) string { return p.in("2", text) }
func (p *paper) green(text string) string { return p.in("32", text) }
func (p *paper) red(text string) string   { return p.in("1;31", text) }

// heading begins a part.
func (p *paper) heading(format string, args ...any) {
	p.printf("\n%s\n", p.bold(fmt.Sprintf(format, args...)))
}

// cut shortens a text to a number of characters.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

// pad fills a text up to a number of characters, on the right; on the left where n is negative.
func pad(text string, n int) string {
	gap := strings.Repeat(" ", max(max(n, -n)-utf8.RuneCountInString(text), 0))
	if n < 0 {
		return gap + text
	}
	return text + gap
}

// wrap breaks a text between words into lines of at most n characters.
func wrap(text string, n int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > n {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
