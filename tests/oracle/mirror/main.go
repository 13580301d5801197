// Command mirror is an upstream that a benchmark controls: it serves a folder in the layout of GOMODCACHE/cache/download,
// on loopback, after a pause that stands for the network, and a checksum database of golang.org/x/mod's own code that
// knows every version in the folder. Its lists name what is in the folder.
//
// Usage: mirror FOLDER PAUSE DATABASE-NAME. Standard output has the address, then the database's key. GET /-/count
// answers "requests zip-requests bytes zip-bytes" since the last such question, checksum database left out, and GET /-/paths
// the paths since the last such question, a line each.
package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"
)

var requests, zipRequests, sent, zipSent atomic.Int64

var paths struct {
	sync.Mutex
	asked []string
}

func main() {
	folder, name := os.Args[1], os.Args[3]
	pause, err := time.ParseDuration(os.Args[2])
	check(err)
	signer, key, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte(name), 64)), name)
	check(err)
	known, order := sums(folder)
	database := sumdb.NewTestServer(signer, func(path, version string) ([]byte, error) {
		if found := known[path+"@"+version]; found != "" {
			return []byte(found), nil
		}
		return nil, os.ErrNotExist
	})
	// The tree is whole before anybody asks, as a real one nearly is.
	for _, v := range order {
		_, err := database.Lookup(nil, v)
		check(err)
	}

	prefix := "/sumdb/" + name
	sumdbServer := http.StripPrefix(prefix, sumdb.NewServer(database))
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/-/count" {
			fmt.Fprintln(w, requests.Swap(0), zipRequests.Swap(0), sent.Swap(0), zipSent.Swap(0))
			return
		}
		if r.URL.Path == "/-/paths" {
			paths.Lock()
			defer paths.Unlock()
			fmt.Fprintln(w, strings.Join(paths.asked, "\n"))
			paths.asked = nil
			return
		}
		time.Sleep(pause)
		if r.URL.Path == prefix+"/supported" {
			return
		}
		if strings.HasPrefix(r.URL.Path, prefix) {
			sumdbServer.ServeHTTP(w, r)
			return
		}
		serve(w, r, folder)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Printf("%s\n%s\n", listener.Addr(), key)
	log.Fatal(http.Serve(listener, http.HandlerFunc(handler)))
}

func serve(w http.ResponseWriter, r *http.Request, folder string) {
	isZip := strings.HasSuffix(r.URL.Path, ".zip")
	requests.Add(1)
	paths.Lock()
	// A benchmark never asks for them.
	paths.asked = append(paths.asked[:min(len(paths.asked), 100_000)], r.URL.Path)
	paths.Unlock()
	if isZip {
		zipRequests.Add(1)
	}
	name := filepath.Join(folder, filepath.Clean(r.URL.Path))
	if below, ok := strings.CutSuffix(name, "/@v/list"); ok {
		list(w, below)
		return
	}
	if below, ok := strings.CutSuffix(name, "/@latest"); ok {
		name = filepath.Join(below, "@v", highest(versions(below))+".info")
	}
	file, err := os.Open(name)
	if err != nil {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil {
		w.Header().Set("Content-Length", fmt.Sprint(info.Size()))
	}
	n, _ := io.Copy(w, file)
	sent.Add(n)
	if isZip {
		zipSent.Add(n)
	}
}

// list answers with the tags of a module. The folder's own lists name pseudo-versions too.
func list(w http.ResponseWriter, folder string) {
	known := versions(folder)
	if len(known) == 0 {
		http.Error(w, "not found", http.StatusNotFound)
	}
	for _, version := range known {
		if !module.IsPseudoVersion(version) {
			fmt.Fprintln(w, version)
		}
	}
}

// versions has the escaped versions of a module of which the folder has what a client asks for before the zip.
func versions(folder string) []string {
	var known []string
	infos, _ := filepath.Glob(filepath.Join(folder, "@v", "*.info"))
	for _, info := range infos {
		version := strings.TrimSuffix(info, ".info")
		if _, err := os.Stat(version + ".mod"); err == nil {
			known = append(known, filepath.Base(version))
		}
	}
	return known
}

func highest(versions []string) string {
	semver.Sort(versions)
	if len(versions) == 0 {
		return ""
	}
	return versions[len(versions)-1]
}

// sums has the lines of go.sum of every version in the folder.
func sums(folder string) (map[string]string, []module.Version) {
	known, order := map[string]string{}, []module.Version{}
	var lock sync.Mutex
	err := filepath.WalkDir(folder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".mod") {
			return err
		}
		relative, err := filepath.Rel(folder, strings.TrimSuffix(file, ".mod"))
		check(err)
		escapedPath, escapedVersion, ok := strings.Cut(relative, "/@v/")
		if !ok {
			return nil
		}
		path, err := module.UnescapePath(escapedPath)
		check(err)
		version, err := module.UnescapeVersion(escapedVersion)
		check(err)
		mod, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(file) })
		check(err)
		lines := ""
		if zip, err := os.ReadFile(strings.TrimSuffix(file, ".mod") + ".ziphash"); err == nil {
			lines = fmt.Sprintf("%s %s %s\n", path, version, bytes.TrimSpace(zip))
		}
		lock.Lock()
		defer lock.Unlock()
		known[path+"@"+version] = lines + fmt.Sprintf("%s %s/go.mod %s\n", path, version, mod)
		order = append(order, module.Version{Path: path, Version: version})
		return nil
	})
	check(err)
	return known, order
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
