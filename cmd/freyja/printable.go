package main

import (
	"bufio"
	"strconv"
	"strings"
	"unicode/utf8"
)

// printable is text in which all that a terminal could take for a command, and all that shows as nothing or turns the direction
// of what follows, is escaped as in Go. Names, keys, errors and the answers of servers pass through it before they are shown.
func printable(text string) string { return escapeExcept(text, "") }

// printableLines is printable for text of several lines: line ends and tabs stay.
func printableLines(text string) string { return escapeExcept(text, "\n\t") }

func escapeExcept(text, keep string) string {
	var out strings.Builder
	done := 0 // bytes of text that are in out
	for at, r := range text {
		_, size := utf8.DecodeRuneInString(text[at:])
		if broken := r == utf8.RuneError && size == 1; !broken && (strconv.IsPrint(r) || strings.ContainsRune(keep, r)) {
			continue
		}
		out.WriteString(text[done:at])
		quoted := strconv.Quote(text[at : at+size])
		out.WriteString(quoted[1 : len(quoted)-1])
		done = at + size
	}
	if done == 0 {
		return text
	}
	return out.String() + text[done:]
}

// printableChunk is how many bytes are escaped at a time.
const printableChunk = 32 << 10

// writePrintable writes b as printableLines does. An error is w's and comes again with the next write.
func writePrintable(w *bufio.Writer, b []byte) {
	for len(b) > 0 {
		n := min(len(b), printableChunk)
		for back := 0; n < len(b) && !utf8.RuneStart(b[n]) && back < utf8.UTFMax; back++ { // no character is cut in two
			n--
		}
		_, _ = w.WriteString(printableLines(string(b[:n])))
		b = b[n:]
	}
}
