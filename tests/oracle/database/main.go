// Command database is a checksum database of golang.org/x/mod's own code, on loopback. It knows the lines of one go.sum
// file and signs with a key that depends on its name only, so that two of them can tell two stories.
//
// Usage: database NAME GO.SUM. The first line of standard output is the address, the second the key.
package main

import (
	"bytes"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	name, file := os.Args[1], os.Args[2]
	seed := bytes.NewReader(bytes.Repeat([]byte(name), 64))
	signer, verifier, err := note.GenerateKey(seed, name)
	if err != nil {
		log.Fatal(err)
	}
	sums, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	lines := func(path, version string) ([]byte, error) {
		var found []byte
		for _, line := range strings.SplitAfter(string(sums), "\n") {
			if strings.HasPrefix(line, path+" "+version+" ") || strings.HasPrefix(line, path+" "+version+"/go.mod ") {
				found = append(found, line...)
			}
		}
		if found == nil {
			return nil, os.ErrNotExist
		}
		return found, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n%s\n", listener.Addr(), verifier)
	log.Fatal(http.Serve(listener, sumdb.NewServer(sumdb.NewTestServer(signer, lines))))
}
