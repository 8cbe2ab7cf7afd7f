package main

import "github.com/spf13/cobra"

// prefixFlag is how a command is told which keys it is about.
type prefixFlag struct {
	arg string
	enc keyEncoding
}

func (p *prefixFlag) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.arg, "prefix", "", "only keys that begin with `PREFIX`")
	p.enc.addFlag(cmd, "PREFIX")
}

// decode is the prefix, empty if none was given: all keys begin with it.
func (p *prefixFlag) decode() ([]byte, error) { return p.enc.decode(p.arg) }
