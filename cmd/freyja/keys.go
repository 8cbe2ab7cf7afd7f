package main

import (
	"bufio"
	"context"
	"io"
	"iter"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// keysFlags are how a command is told which keys it is about: arguments, or a file of keys.
type keysFlags struct {
	enc  keyEncoding
	from string // "": the arguments; "-": standard input
	null bool
}

func (k *keysFlags) addFlags(cmd *cobra.Command) {
	k.enc.addFlag(cmd, "each KEY")
	cmd.Flags().StringVar(&k.from, "keys-from", "", "take the keys from `FILE`, one on each line (-: standard input)")
	addNull(cmd, &k.null)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch fromFile := cmd.Flags().Changed("keys-from"); {
		case !fromFile && len(args) == 0:
			return usagef("no KEY: give one, or --keys-from")
		case fromFile && len(args) > 0:
			return usagef("--keys-from and a KEY do not go together")
		}
		return nil
	}
}

// addNull adds --null, for keys and values that have line ends in them.
func addNull(cmd *cobra.Command, null *bool) {
	cmd.Flags().BoolVarP(null, "null", "0", false, "end what would be a line with a zero byte, as xargs -0 and sort -z do")
}

// end is the byte behind each key in a file, and behind each line that is printed.
func end(null bool) byte {
	if null {
		return 0
	}
	return '\n'
}

// keys yields keys, each valid until the next, or what is wrong with one. Nothing follows an error.
type keys = iter.Seq2[[]byte, error]

// open finds the keys. Those that are arguments it decodes all, so that a command with a mistake in the
// last one does nothing. The caller calls done.
func (k *keysFlags) open(ctx context.Context, a *app, args []string) (all keys, done func(), err error) {
	if k.from == "" {
		decoded := make([][]byte, len(args))
		for i, arg := range args {
			if decoded[i], err = k.enc.decode(arg); err != nil {
				return nil, nil, err
			}
		}
		return given(ctx, decoded), func() {}, nil
	}
	if err := k.enc.check(); err != nil {
		return nil, nil, err
	}
	file, err := a.openInputFile(k.from)
	if err != nil {
		return nil, nil, err
	}
	in := &keyReader{text: keyText(newReadAhead(ctx, file), file.name), enc: k.enc, end: end(k.null)}
	in.text.pos.bytes = k.null // its lines mean little
	return in.keys, file.close, nil
}

func given(ctx context.Context, decoded [][]byte) keys {
	return func(yield func([]byte, error) bool) {
		for _, key := range decoded {
			if ctx.Err() != nil {
				yield(nil, errInterrupted)
				return
			}
			if !yield(key, nil) {
				return
			}
		}
	}
}

// keyText is a scanner that takes what looks like a byte order mark for a part of the first key: a
// binary key may begin so.
func keyText(r io.Reader, name string) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, scanBufferSize), pos: position{name: name, line: 1}}
}

// keyReader reads a file of keys. Unlike the lines of an import, those of keys end with "\n" alone: a
// carriage return belongs to the key, since to delete another key than the one that is written is worse
// than to find none.
type keyReader struct {
	text *scanner
	enc  keyEncoding
	end  byte
	line []byte // reused
}

func (r *keyReader) keys(yield func([]byte, error) bool) {
	for {
		key, err := r.next()
		if err == io.EOF || !yield(key, err) || err != nil {
			return
		}
	}
}

// next is the next key; blank lines it passes over.
func (r *keyReader) next() (key []byte, err error) {
	for {
		if _, err := r.text.peekByte(); err != nil {
			return nil, r.error(err)
		}
		at := r.text.pos
		var long bool
		r.line, long, err = r.text.collect(r.line[:0], r.enc.maxText(), func(b byte) bool { return b == r.end })
		if err != nil && err != io.EOF {
			return nil, r.error(err)
		}
		if err == nil {
			r.text.skip(1)
		}
		switch {
		case long:
			return nil, errorf(at, "the key is longer than a store can hold")
		case len(r.line) == 0:
			continue
		}
		if key, err = r.enc.bytes(r.line); err != nil {
			return nil, errorf(at, "%q is not %s: %w", r.line, r.enc, err)
		}
		return key, nil
	}
}

func (r *keyReader) error(err error) error {
	if err == io.EOF || err == errInterrupted {
		return err
	}
	return r.text.readError(err)
}

// maxText is how long a key may be as it is written.
func (e keyEncoding) maxText() int {
	if e == keyRaw {
		return freyja.MaxKeySize
	}
	return 2 * freyja.MaxKeySize // of hex; base64 is shorter
}
