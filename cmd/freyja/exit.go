package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/freyjadb/freyja"
)

// The exit codes. They are documented in the help of the root command; scripts rely on them.
const (
	exitOK          = 0
	exitNotMet      = 1 // the key is not there, or the condition does not hold
	exitUsage       = 2
	exitStore       = 3
	exitInput       = 4
	exitInterrupted = 130 // as a shell reports a process that SIGINT ended
)

var (
	errInterrupted = errors.New("interrupted")
	errKeyPresent  = errors.New("key is present")
)

// usageError is a command line that no store and no input could make right.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// exitCode says what the error of a command that had started means to the caller. What is not
// recognized came from the store or from the system below it.
func exitCode(err error) int {
	var usage usageError
	var input *inputError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage),
		errors.Is(err, freyja.ErrInvalidOptions):
		return exitUsage
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled): // only Ctrl-C cancels
		return exitInterrupted
	case errors.As(err, &input): // before the key errors, which it may wrap
		return exitInput
	case errors.Is(err, freyja.ErrKeyNotFound), errors.Is(err, errKeyPresent):
		return exitNotMet
	case errors.Is(err, freyja.ErrInvalidKey),
		errors.Is(err, freyja.ErrKeyTooLarge),
		errors.Is(err, freyja.ErrValueTooLarge):
		return exitUsage
	case isBrokenPipe(err):
		return exitOK
	}
	return exitStore
}

// isBrokenPipe reports whether err is the end of a pipe whose reader wants no more: nothing went
// wrong, and there is nobody to tell.
func isBrokenPipe(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && errors.Is(path.Err, syscall.EPIPE)
}

// message is err with the program's name before it. Names that it has in it may be anybody's.
func message(err error) string { return programName + printableLines(withoutName(err)) }

// withoutName is the text of err without the name that the library's errors begin with, so that a
// message has it once.
func withoutName(err error) string { return strings.TrimPrefix(err.Error(), programName) }

const programName = "freyja: "
