package cache_test

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/cache"
)

func ExampleCache() {
	type user struct {
		Name string `json:"name"`
	}
	dir, _ := os.MkdirTemp("", "freyja-example-")
	defer os.RemoveAll(dir)
	db, err := freyja.Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	users, err := cache.New(db, cache.Options[*user]{
		MaxCost: 256 << 20, // bytes
		Decode: func(_, raw []byte) (*user, error) {
			u := new(user)
			return u, json.Unmarshal(raw, u)
		},
		Encode: func(u *user) ([]byte, error) { return json.Marshal(u) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer users.Close()

	_ = users.Put([]byte("user/1"), &user{Name: "Sif"})
	u, err := users.Get([]byte("user/1")) // decoded now, or from memory
	fmt.Println(u.Name, err)

	_ = db.Put([]byte("user/1"), []byte(`{"name": "Idun"}`)) // past the cache
	u, err = users.Get([]byte("user/1"))
	fmt.Println(u.Name, err)
	// Output:
	// Sif <nil>
	// Idun <nil>
}
