// Command sumdb answers what golang.org/x/mod says: one JSON object a line on standard input, one answer a line on
// standard output, in order. tests/sumdb_differential.rs holds the Rust code's answers against these.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/mod/zip"
)

// request has the fields of all questions; each uses a few.
type request struct {
	Op      string
	Text    []byte
	File    string
	Unpack  bool
	Module  string
	Version string
	Keys    []string
	Size    int64
	Older   int64
	Hash    string
	Other   string
	Height  int
	Proof   []string
	Tiles   [][]byte
}

// answer has the fields of all answers. Kind says why OK is false.
type answer struct {
	OK         bool     `json:"ok"`
	Kind       string   `json:"kind"`
	Text       []byte   `json:"text"`
	Rest       []byte   `json:"rest"`
	Numbers    []int64  `json:"numbers"`
	Names      []string `json:"names"`
	Unverified []string `json:"unverified"`
	Tiles      [][]byte `json:"tiles"`
}

func refused(err error) answer { return answer{Kind: err.Error()} }

func verdict(err error) answer {
	if err != nil {
		return refused(err)
	}
	return answer{OK: true}
}

// answerTo dispatches. An unknown question ends the program, so that a misspelt one can't look like a refusal.
func answerTo(q request) answer {
	switch q.Op {
	case "letters":
		return letters()
	case "folds":
		return folds()
	case "path":
		return verdict(module.CheckFilePath(string(q.Text)))
	case "module":
		if module.CanonicalVersion(q.Version) != q.Version {
			return answer{Kind: "not canonical"}
		}
		return verdict(module.Check(q.Module, q.Version))
	case "zip":
		return checkZip(q)
	case "key":
		v, err := note.NewVerifier(string(q.Text))
		if err != nil {
			return refused(err)
		}
		return answer{OK: true, Names: []string{v.Name()}, Numbers: []int64{int64(v.KeyHash())}}
	case "note":
		return openNote(q)
	case "tree":
		tree, err := tlog.ParseTree(q.Text)
		if err != nil {
			return refused(err)
		}
		return answer{OK: true, Numbers: []int64{tree.N}, Names: []string{tree.Hash.String()}}
	case "record":
		return parseRecord(q)
	case "tile":
		tile, err := tlog.ParseTilePath(string(q.Text))
		if err != nil {
			return refused(err)
		}
		return answer{OK: true, Numbers: []int64{int64(tile.H), int64(tile.L), tile.N, int64(tile.W)}}
	case "roots", "prove_record", "prove_tree", "check_record", "check_tree", "tiles_record", "tiles_tree":
		return aboutTrees(q)
	}
	fmt.Fprintln(os.Stderr, "unknown question", q.Op)
	os.Exit(1)
	return answer{}
}

func letters() (a answer) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if unicode.IsLetter(r) {
			a.Numbers = append(a.Numbers, int64(r))
		}
	}
	return a
}

// folds lists the runes that have other cases, in pairs of the rune and the smallest of its kin.
func folds() (a answer) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		if unicode.SimpleFold(r) != r && utf8.ValidRune(r) {
			a.Numbers = append(a.Numbers, int64(r), int64(least))
		}
	}
	return a
}

// checkZip is what a go command does with a zip: check, unpack, hash.
func checkZip(q request) answer {
	m := module.Version{Path: q.Module, Version: q.Version}
	if _, err := zip.CheckZip(m, q.File); err != nil {
		return refused(err)
	}
	if q.Unpack {
		dir, err := os.MkdirTemp("", "sumdb-oracle")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := zip.Unzip(dir, m, q.File); err != nil {
			return refused(err)
		}
	}
	h1, err := dirhash.HashZip(q.File, dirhash.Hash1)
	if err != nil {
		return refused(err)
	}
	return answer{OK: true, Names: []string{h1}}
}

func openNote(q request) answer {
	var known []note.Verifier
	for _, key := range q.Keys {
		v, err := note.NewVerifier(key)
		if err != nil {
			panic(err)
		}
		known = append(known, v)
	}
	n, err := note.Open(q.Text, note.VerifierList(known...))
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		return answer{Kind: "unverified", Text: []byte(unverified.Note.Text), Unverified: signatures(unverified.Note.UnverifiedSigs)}
	case errors.As(err, &invalid):
		return answer{Kind: "signature"}
	case err != nil && err.Error() == "malformed note":
		return answer{Kind: "malformed"}
	case err != nil:
		return answer{Kind: "ambiguous"}
	}
	return answer{OK: true, Text: []byte(n.Text), Names: signatures(n.Sigs), Unverified: signatures(n.UnverifiedSigs)}
}

func signatures(list []note.Signature) (lines []string) {
	for _, s := range list {
		lines = append(lines, fmt.Sprintf("%s %08x %s", s.Name, s.Hash, s.Base64))
	}
	return lines
}

// parseRecord calls a number that is written in another way than Go writes it by that name, for Go reads it.
func parseRecord(q request) answer {
	id, text, rest, err := tlog.ParseRecord(q.Text)
	if err != nil {
		return refused(err)
	}
	number := strconv.FormatInt(id, 10)
	canonical := id >= 0 && len(q.Text) > len(number) && string(q.Text[:len(number)+1]) == number+"\n"
	if !canonical {
		return answer{Kind: "number"}
	}
	return answer{OK: true, Numbers: []int64{id}, Text: text, Rest: rest}
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	questions, answers := json.NewDecoder(in), json.NewEncoder(out)
	for questions.More() {
		var q request
		if err := questions.Decode(&q); err != nil {
			panic(err)
		}
		if err := answers.Encode(answerTo(q)); err != nil {
			panic(err)
		}
		// Flushed when there is nothing more to read: the other side waits for a whole batch.
		if in.Buffered() == 0 {
			out.Flush()
		}
	}
	out.Flush()
}
