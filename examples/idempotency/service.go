package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// service charges accounts.
type service struct {
	table    *table
	provider *provider
	log      *slog.Logger
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /charges", s.charge)
	return mux
}

func (s *service) charge(w http.ResponseWriter, r *http.Request) {
	// In a service with users the key is theirs: it would have the user's name in front, or one could ask for another's result.
	key := r.Header.Get("Idempotency-Key")
	if key == "" || len(key) > 255 {
		http.Error(w, "Idempotency-Key: 1 to 255 bytes", http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var request struct {
		Account string
		Cents   int64
	}
	if err := json.Unmarshal(body, &request); err != nil || request.Account == "" || request.Cents <= 0 {
		http.Error(w, "want an account and cents", http.StatusBadRequest)
		return
	}
	sum := sha256.Sum256(body)
	// A client that hangs up does not stop the work: it will be back with the same key.
	ctx := context.WithoutCancel(r.Context())
	done, err := s.table.do(ctx, key, hex.EncodeToString(sum[:]), func(ctx context.Context) (result, error) {
		receipt, err := s.provider.charge(ctx, key, request.Account, request.Cents)
		return result{Status: http.StatusCreated, Body: receipt}, err
	})
	switch {
	case errors.Is(err, errOtherRequest):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case errors.Is(err, errUnderWay), errors.Is(err, errTakenOver):
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		s.log.Error("charge failed", "key", key, "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	default:
		w.WriteHeader(done.Status)
		_, _ = io.WriteString(w, done.Body) // the client is gone, or not
	}
}

// provider stands for the work: somebody else's service that moves money, takes its time, and knows an idempotency key itself.
type provider struct {
	takes time.Duration

	mu       sync.Mutex
	asked    int
	receipts map[string]string // by idempotency key
}

func newProvider(takes time.Duration) *provider {
	return &provider{takes: takes, receipts: map[string]string{}}
}

func (p *provider) charge(ctx context.Context, key, _ string, _ int64) (receipt string, err error) {
	if err := sleep(ctx, p.takes); err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.receipts[key] == "" {
		p.receipts[key] = fmt.Sprintf("ch-%d", len(p.receipts)+1)
	}
	return p.receipts[key], nil
}

// calls is how often it was asked to charge.
func (p *provider) calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}
