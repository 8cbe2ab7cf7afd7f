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
	var key []byte
	var err error
	switch e {
	case keyRaw:
		key = []byte(arg)
	case keyHex:
		key, err = hex.DecodeString(arg)
	case keyBase64:
		key, err = base64.StdEncoding.DecodeString(arg)
	default:
		return nil, usagef("--key-encoding %q is not one of raw, hex, base64", string(e))
	}
	if err != nil {
		return nil, usagef("key %q is not %s: %w", arg, e, err)
	}
	return key, nil
}
