package main

import (
	"encoding/base64"
	"encoding/hex"

	"github.com/spf13/cobra"
)

// keyEncoding says how keys stand on the command line. An argument cannot hold a zero byte, so
// keys that are not text need one of the encodings.
type keyEncoding string

const (
	keyRaw    keyEncoding = "raw"
	keyHex    keyEncoding = "hex"
	keyBase64 keyEncoding = "base64"
)

// addFlag adds --key-encoding, which is about the argument called what.
func (e *keyEncoding) addFlag(cmd *cobra.Command, what string) {
	*e = keyRaw
	cmd.Flags().StringVar((*string)(e), "key-encoding", string(keyRaw),
		"how "+what+" is written: raw, hex or base64 (standard, padded)")
	_ = cmd.RegisterFlagCompletionFunc("key-encoding", // fails only for a flag that does not exist
		cobra.FixedCompletions([]string{string(keyRaw), string(keyHex), string(keyBase64)}, cobra.ShellCompDirectiveNoFileComp))
}

// decode turns an argument into the key it stands for.
func (e keyEncoding) decode(arg string) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	key, err := e.bytes([]byte(arg))
	if err != nil {
		return nil, usagef("key %q is not %s: %w", arg, e, err)
	}
	return key, nil
}

func (e keyEncoding) check() error {
	switch e {
	case keyRaw, keyHex, keyBase64:
		return nil
	}
	return usagef("--key-encoding %q is not one of raw, hex, base64", string(e))
}

// bytes is what text stands for. It may be text itself.
func (e keyEncoding) bytes(text []byte) ([]byte, error) {
	switch e {
	case keyHex:
		return hex.AppendDecode(nil, text)
	case keyBase64:
		return base64.StdEncoding.AppendDecode(nil, text)
	}
	return text, nil
}
