package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/freyjadb/freyja"
)

// errNoSession: the token is none, or its session has ended, by logout or by time.
var errNoSession = errors.New("no such session")

// session is what is stored of a login.
type session struct {
	User    string
	Created time.Time
}

// sessions is the table. Its methods may be called from any number of goroutines.
//
// Under Periodic, the default, a machine that dies may forget the last second: logins, which only annoys, and logouts, which
// lets a session live on until its time is over. Where that matters, open the store with Always, or call DB.Sync in logout.
type sessions struct {
	db            *freyja.DB
	idle, longest time.Duration
	// stripes serialize renewal and logout of a session: renewal reads and then writes, and a logout in between would be
	// undone by what it writes. Update would be the store's own way to do both at once, but what it writes never expires. One
	// process has the store, so locks in it are enough. Lookups that renew nothing take none.
	stripes [64]sync.Mutex
}

func newSessions(db *freyja.DB, idle, longest time.Duration) *sessions {
	return &sessions{db: db, idle: idle, longest: longest}
}

// login begins a session and returns the token that stands for it: the value of a cookie.
func (s *sessions) login(user string) (token string, err error) {
	raw, err := json.Marshal(session{User: user, Created: time.Now()})
	if err != nil {
		return "", err
	}
	token = rand.Text() // 128 random bits or more: not to be guessed, and never the same again
	if err := s.db.PutTTL(sessionKey(token), raw, s.idle); err != nil {
		return "", fmt.Errorf("begin session: %w", err)
	}
	return token, nil
}

// lookup returns the session of token, and renews it once half of its idle time has passed. So most lookups are
// reads, which take no lock, and not writes; the price is that a session may end after half of idle without use, but never later
// than idle after its last one.
func (s *sessions) lookup(token string) (session, error) {
	found, expiry, err := s.read(token)
	if err != nil {
		return session{}, err
	}
	if time.Until(expiry) < s.idle/2 {
		return s.renew(token)
	}
	return found, nil
}

// renew gives the session its idle time again, as far as its longest lifetime goes.
func (s *sessions) renew(token string) (session, error) {
	defer s.lock(token).Unlock()
	found, _, err := s.read(token) // again: it may have ended
	if err != nil {
		return session{}, err
	}
	ttl := min(s.idle, time.Until(found.Created.Add(s.longest)))
	if ttl <= 0 { // it ends at this very moment
		return session{}, errNoSession
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return session{}, err
	}
	if err := s.db.PutTTL(sessionKey(token), raw, ttl); err != nil {
		return session{}, fmt.Errorf("renew session: %w", err)
	}
	return found, nil
}

// logout ends the session of token. After it no lookup finds it. It is no error if there is none.
func (s *sessions) logout(token string) error {
	defer s.lock(token).Unlock()
	if err := s.db.Delete(sessionKey(token)); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// read returns the session of token and when it expires, which the store knows.
func (s *sessions) read(token string) (session, time.Time, error) {
	raw, version, err := s.db.AppendGetVersion(nil, sessionKey(token))
	if errors.Is(err, freyja.ErrKeyNotFound) {
		return session{}, time.Time{}, errNoSession
	}
	if err != nil {
		return session{}, time.Time{}, fmt.Errorf("look up session: %w", err)
	}
	var found session
	if err := json.Unmarshal(raw, &found); err != nil {
		return session{}, time.Time{}, fmt.Errorf("look up session: %w", err)
	}
	return found, time.Unix(0, version.Expiry()), nil
}

// sessionKey is the key of a session. It has a hash of the token, so that who reads the store or one of its backups cannot
// use the sessions in it.
func sessionKey(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return append([]byte("session/"), sum[:]...)
}

// lock takes the stripe of token.
func (s *sessions) lock(token string) *sync.Mutex {
	sum := sha256.Sum256([]byte(token))
	mu := &s.stripes[int(sum[0])%len(s.stripes)]
	mu.Lock()
	return mu
}
