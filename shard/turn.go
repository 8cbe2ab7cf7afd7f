package shard

import "context"

// turn is a mutex that one can stop waiting for.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) lock() { t <- struct{}{} }

func (t turn) unlock() { <-t }

// lockUnless takes the mutex, or returns the error of ctx if that is done first.
func (t turn) lockUnless(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
