package freyja_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/freyjadb/freyja"
)

// tempStore opens a store in a folder of its own, which done removes.
func tempStore() (db *freyja.DB, done func()) {
	dir, err := os.MkdirTemp("", "freyja-example-")
	if err != nil {
		log.Fatal(err)
	}
	db, err = freyja.Open(filepath.Join(dir, "store"), nil)
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		if err := errors.Join(db.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "freyja-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	db, err := freyja.Open(filepath.Join(dir, "store"), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := db.Put([]byte("greeting"), []byte("hello")); err != nil {
		log.Fatal(err)
	}
	value, err := db.Get([]byte("greeting"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", value)
	_, err = db.Get([]byte("farewell"))
	fmt.Println(errors.Is(err, freyja.ErrKeyNotFound))
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello
	// true
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "freyja-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	opts := &freyja.Options{Shards: 4, Durability: freyja.Always}
	for range 2 {
		db, err := freyja.Open(filepath.Join(dir, "store"), opts)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("created:", db.Recovery().Created, "keys:", db.Len())
		if err := errors.Join(db.Put([]byte("key"), nil), db.Close()); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// created: true keys: 0
	// created: false keys: 1
}

func ExampleDB_View() {
	db, done := tempStore()
	defer done()
	if err := db.Put([]byte("line"), []byte("a,b,c")); err != nil {
		log.Fatal(err)
	}
	fields := 0
	err := db.View([]byte("line"), func(value []byte) error {
		// value lies in the store's mapping: no copy was made, and it is not to be kept.
		fields = strings.Count(string(value), ",") + 1
		return nil
	})
	fmt.Println(fields, err)
	// Output: 3 <nil>
}

func ExampleDB_GetMany() {
	db, done := tempStore()
	defer done()
	if err := errors.Join(db.Put([]byte("one"), []byte("1")), db.Put([]byte("three"), []byte("3"))); err != nil {
		log.Fatal(err)
	}
	keys := [][]byte{[]byte("one"), []byte("two"), []byte("three")}
	err := db.GetMany(keys, func(i int, value []byte, ok bool) error {
		if !ok {
			fmt.Printf("%s is not there\n", keys[i])
			return nil
		}
		fmt.Printf("%s is %s\n", keys[i], value)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// one is 1
	// two is not there
	// three is 3
}

func ExampleDB_Update() {
	db, done := tempStore()
	defer done()
	for range 3 {
		err := db.Update([]byte("visits"), func(old []byte) ([]byte, error) {
			return append(append([]byte{}, old...), '|'), nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	value, err := db.Get([]byte("visits"))
	fmt.Printf("%s %v\n", value, err)
	// Output: ||| <nil>
}

func ExampleDB_PutIfAbsent() {
	db, done := tempStore()
	defer done()
	for _, owner := range []string{"first", "second"} {
		stored, err := db.PutIfAbsent([]byte("lease"), []byte(owner))
		fmt.Println(owner, stored, err)
	}
	value, err := db.Get([]byte("lease"))
	fmt.Printf("%s %v\n", value, err)
	// Output:
	// first true <nil>
	// second false <nil>
	// first <nil>
}

func ExampleDB_CompareAndSwap() {
	db, done := tempStore()
	defer done()
	key := []byte("state")
	fmt.Println(db.CompareAndSwap(key, nil, []byte("open")))            // nil: the key is absent
	fmt.Println(db.CompareAndSwap(key, []byte("shut"), []byte("ajar"))) // it is not
	fmt.Println(db.CompareAndSwap(key, []byte("open"), nil))            // nil: delete the key
	fmt.Println(db.Has(key))
	// Output:
	// true <nil>
	// false <nil>
	// true <nil>
	// false <nil>
}

func ExampleNewConcurrentKVStore() {
	dir, err := os.MkdirTemp("", "freyja-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := freyja.NewConcurrentKVStore(freyja.KVStoreConfig{
		DataDir:       filepath.Join(dir, "data"),
		FsyncInterval: 0, // every write is on disk when it returns
		MaxRecordSize: 64,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(store.Put([]byte("key"), []byte("value")))
	err = store.Put([]byte("key"), make([]byte, 100))
	fmt.Println(errors.Is(err, freyja.ErrValueTooLarge))
	fmt.Println(store.Stats().Writes)
	// Output:
	// <nil>
	// true
	// 1
}
