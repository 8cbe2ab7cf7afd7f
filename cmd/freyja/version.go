package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionReport is what version --json prints.
type versionReport struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of a build in a checkout
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of freyja",
		Long: `version prints what the Go toolchain recorded in the program: the version of the module, or the commit of
a build in a checkout, with the version of Go and the platform.

JSON: version, revision (of a build in a checkout), go, os, arch.`,
		Example: `  freyja version
  freyja version --json | jq -r .go`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return writeJSON(a.stdout, newVersionReport())
			}
			_, err := fmt.Fprintf(a.stdout, "freyja %s\n", version())
			return err
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func newVersionReport() versionReport {
	r := versionReport{Version: "(unknown)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return r
	}
	r.Version = info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			r.Revision = s.Value
		}
	}
	return r
}

// version is the report in one line. A version that is not "(devel)" names the commit itself.
func version() string {
	r := newVersionReport()
	if r.Version == "(devel)" && r.Revision != "" {
		r.Version += " " + r.Revision
	}
	return fmt.Sprintf("%s %s %s/%s", r.Version, r.Go, r.OS, r.Arch)
}
