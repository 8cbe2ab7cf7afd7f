package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of freyja",
		Example: "  freyja version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.stdout, "freyja %s\n", version())
			return err
		},
	}
}

// version is what the Go toolchain recorded in the binary: the module's version, or the commit of
// a build in a checkout.
func version() string {
	name := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		name = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && name == "(devel)" {
				name += " " + s.Value
			}
		}
	}
	return fmt.Sprintf("%s %s %s/%s", name, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
