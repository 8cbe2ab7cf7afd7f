package main

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
)

// textEncoding says how the bytes of keys and values are printed.
type textEncoding string

const (
	textRaw    textEncoding = "raw"
	textQuoted textEncoding = "quoted"
	textHex    textEncoding = "hex"
	textBase64 textEncoding = "base64"

	// textTerminal is what raw is on a terminal, unless it was asked for.
	textTerminal textEncoding = "terminal"
)

func (e *textEncoding) addFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar((*string)(e), "encoding", string(textRaw),
		"how keys and values are printed: raw, quoted (as in Go), hex or base64")
	_ = cmd.RegisterFlagCompletionFunc("encoding", // fails only for a flag that does not exist
		cobra.FixedCompletions([]string{string(textRaw), string(textQuoted), string(textHex), string(textBase64)},
			cobra.ShellCompDirectiveNoFileComp))
}

// onTerminal has what is printed escaped if stdout is a terminal and nothing was said of it.
func (e *textEncoding) onTerminal(cmd *cobra.Command, stdout any) {
	if *e == textRaw && !cmd.Flags().Changed("encoding") && isTerminal(stdout) {
		*e = textTerminal
	}
}

func (e textEncoding) check() error {
	switch e {
	case textRaw, textQuoted, textHex, textBase64:
		return nil
	}
	return usagef("--encoding %q is not one of raw, quoted, hex, base64", string(e))
}

// write prints b. An error is w's and comes again with the next write.
func (e textEncoding) write(w *bufio.Writer, b []byte) {
	switch e {
	case textQuoted:
		_, _ = w.Write(strconv.AppendQuote(w.AvailableBuffer(), string(b)))
	case textTerminal:
		writePrintable(w, b)
	case textHex:
		writeEncoded(w, b, hex.AppendEncode)
	case textBase64:
		writeEncoded(w, b, base64.StdEncoding.AppendEncode)
	default:
		_, _ = w.Write(b)
	}
}

// encodedChunk is how many bytes are encoded at a time, so that a value of a gigabyte is not in memory
// twice: a multiple of 3, whose base64 needs no padding.
const encodedChunk = 12 << 10

// writeEncoded writes b in hex or base64. An error is w's and comes again with the next write.
func writeEncoded(w *bufio.Writer, b []byte, appendEncoded func(dst, src []byte) []byte) {
	for chunk := range slices.Chunk(b, encodedChunk) {
		_, _ = w.Write(appendEncoded(w.AvailableBuffer(), chunk))
	}
}
