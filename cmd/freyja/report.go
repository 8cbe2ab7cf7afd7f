package main

import (
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// addJSON adds --json to a command that says at its end what it did. Names in JSON are an interface:
// programs read them, and the help of the command lists them.
func addJSON(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON: sizes in bytes, times in seconds")
}

// writeJSON writes a report, indented: people look at those, too.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// writeJSONLine is for what a script may collect from many runs.
func writeJSONLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// reportTo is where a command that writes to output called name puts its report as JSON: on standard
// output, unless that has the data.
func (a *app) reportTo(name string) io.Writer {
	if name == "-" {
		return a.stderr
	}
	return a.stdout
}

// jsonKey is a key in a report: text if it is UTF-8, else base64, like in JSON Lines. Neither is there
// if the key is not known.
type jsonKey struct {
	Key       string `json:"key,omitempty"`
	KeyBase64 []byte `json:"key_base64,omitempty"`
}

func newJSONKey(key []byte) jsonKey {
	if utf8.Valid(key) {
		return jsonKey{Key: string(key)}
	}
	return jsonKey{KeyBase64: key}
}
