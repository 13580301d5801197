// Command modzip writes a module's zip with one file of random bytes.
//
// Usage: modzip FILE MODULE VERSION BYTES
package main

import (
	"archive/zip"
	"crypto/rand"
	"io"
	"log"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: modzip FILE MODULE VERSION BYTES")
	}
	size, err := strconv.ParseInt(os.Args[4], 10, 64)
	check(err)
	file, err := os.Create(os.Args[1])
	check(err)
	writer := zip.NewWriter(file)
	entry, err := writer.Create(os.Args[2] + "@" + os.Args[3] + "/data.go")
	check(err)
	_, err = io.CopyN(entry, rand.Reader, size)
	check(err)
	check(writer.Close())
	check(file.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
