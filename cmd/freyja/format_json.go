package main

import (
	"errors"
	"io"
)

// jsonObject reads one JSON object and yields its members: name and value. It never holds more
// than one of them.
func jsonObject(r io.Reader, name string) source {
	return func(yield func(pair, error) bool) {
		text, err := newScanner(r, name)
		if err != nil {
			yield(pair{}, err)
			return
		}
		text.pos.bytes = true
		o := objectReader{jsonScanner: jsonScanner{scanner: text}}
		err = o.members(yield)
		if err != nil && err != errStopped {
			yield(pair{}, o.inputError(err))
		}
	}
}

// errStopped says that the one who asks for pairs wants no more.
var errStopped = errors.New("stopped")

// inputError is err as a source yields it: a reader's error gets the place where it came.
func (s *scanner) inputError(err error) error {
	var bad *inputError
	if errors.As(err, &bad) {
		return err
	}
	return s.readError(err)
}

// objectReader reads a JSON object member by member.
type objectReader struct {
	jsonScanner
	keyText, valueText []byte // reused from pair to pair
}

// members yields all members and returns what ends that: nil at the end of the text.
func (o *objectReader) members(yield func(pair, error) bool) error {
	if _, err := o.peek(); err == io.EOF {
		return o.fatalf("the text is empty, not a JSON object")
	}
	if err := o.expect('{'); err != nil {
		return err
	}
	first, err := o.need()
	if err != nil {
		return err
	}
	more := first != '}'
	if !more {
		o.skip(1)
	}
	for more {
		p, err := o.member()
		var bad *inputError
		if err != nil && (!errors.As(err, &bad) || bad.fatal) {
			return err
		}
		if !yield(p, err) {
			return errStopped
		}
		if more, err = o.separator(); err != nil {
			return err
		}
	}
	switch b, err := o.peek(); {
	case err == nil:
		return o.fatalf("the object has ended, but %q follows", b)
	case err != io.EOF:
		return err
	}
	return nil
}

// member reads both halves of a pair before it looks into either, so that the object can go on
// behind a pair that cannot be decoded.
func (o *objectReader) member() (pair, error) {
	key, err := o.stringText(o.keyText, maxKeyText)
	if err != nil {
		return pair{}, err
	}
	o.keyText = key.text
	if err := o.expect(':'); err != nil {
		return pair{}, err
	}
	value, err := o.value(o.valueText, maxValueText)
	if err != nil {
		return pair{}, err
	}
	o.valueText = value.text
	return o.decodePair(key, value)
}

func (s *jsonScanner) decodePair(key, value jsonText) (p pair, err error) {
	if key.over {
		return pair{}, errorf(key.at, "the key is longer than a store can hold")
	}
	if p.key, err = s.decode(key); err != nil {
		return pair{}, err
	}
	if p.value, err = s.decode(value); err != nil {
		return pair{}, err
	}
	p.at = key.at
	return p, nil
}
