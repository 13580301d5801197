// Command modfile answers questions about module paths, versions, go.mod and go.sum files with Go's own code, so that
// tests/gomod_differential can hold ours equal to it. It reads a JSON question a line and writes a JSON answer a line.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	goversion "go/version"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

type question struct {
	Op   string
	A, B string
	List []string
	File []byte
}

type answer = map[string]any

func main() {
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for decoder.More() {
		var q question
		if err := decoder.Decode(&q); err != nil {
			fmt.Fprintln(os.Stderr, "bad question:", err)
			os.Exit(1)
		}
		if err := encoder.Encode(reply(q)); err != nil {
			fmt.Fprintln(os.Stderr, "can't answer:", err)
			os.Exit(1)
		}
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "can't answer:", err)
		os.Exit(1)
	}
}

func reply(q question) any {
	switch q.Op {
	case "version":
		return version(q.A)
	case "compare":
		return semver.Compare(q.A, q.B)
	case "sort":
		semver.Sort(q.List)
		return q.List
	case "path":
		return path(q.A)
	case "major":
		return module.CheckPathMajor(q.A, q.B) == nil
	case "unescape":
		return unescape(q.A)
	case "go":
		return goversion.Compare("go"+q.A, "go"+q.B)
	case "gomod":
		return goMod(q.File)
	case "gosum":
		return goSum(q.File)
	case "info":
		return info(q.File)
	case "printable":
		return printable()
	}
	return answer{"unknown": q.Op}
}

// orNull is the value, or nothing if there was an error.
func orNull(value string, err error) any {
	if err != nil {
		return nil
	}
	return value
}

func version(v string) answer {
	var stamp any
	if t, err := module.PseudoVersionTime(v); err == nil {
		stamp = t.Format(module.PseudoVersionTimestampFormat)
	}
	return answer{
		"valid":      semver.IsValid(v),
		"canonical":  semver.Canonical(v),
		"major":      semver.Major(v),
		"majorMinor": semver.MajorMinor(v),
		"prerelease": semver.Prerelease(v),
		"build":      semver.Build(v),
		"named":      module.CanonicalVersion(v),
		"pseudo":     module.IsPseudoVersion(v),
		"time":       stamp,
		"revision":   orNull(module.PseudoVersionRev(v)),
		"base":       orNull(module.PseudoVersionBase(v)),
		"escaped":    orNull(module.EscapeVersion(v)),
	}
}

var rfc3339 = regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"$`)

// strictTime is a time in RFC 3339 to the letter: time.Time takes one digit for the hour, a comma, and an offset of 24 hours too.
type strictTime struct{ time.Time }

func (t *strictTime) UnmarshalJSON(text []byte) error {
	if string(text) != "null" && !rfc3339.Match(text) {
		return errors.New("no RFC 3339")
	}
	return t.Time.UnmarshalJSON(text)
}

// info is what the oldest go command that is supported reads of an .info file: Origin came later. A time that has more digits or is
// later than ours may be is as good as none.
func info(file []byte) answer {
	var read struct {
		Version string
		Time    strictTime
	}
	if err := json.Unmarshal(file, &read); err != nil || read.Version == "" {
		return answer{"version": nil, "time": nil}
	}
	var seconds any
	if latest := time.Date(9999, 12, 30, 22, 0, 0, 0, time.UTC); !read.Time.IsZero() && read.Time.Before(latest) {
		seconds = []int64{read.Time.Unix(), int64(read.Time.Nanosecond())}
	}
	return answer{"version": read.Version, "time": seconds}
}

func path(p string) answer {
	prefix, major, ok := module.SplitPathVersion(p)
	var split, synthesized any
	if ok {
		split = []string{prefix, major}
	}
	if module.CheckPath(p) == nil {
		// What the go command's modfetch does for a module without a go.mod.
		synthesized = "module " + modfile.AutoQuote(p) + "\n"
	}
	return answer{"split": split, "escaped": orNull(module.EscapePath(p)), "synthesized": synthesized}
}

func unescape(s string) answer {
	return answer{"path": orNull(module.UnescapePath(s)), "version": orNull(module.UnescapeVersion(s))}
}

func goMod(data []byte) answer {
	// A toolchain line counts in the main module only, so it is looked for with the strict reader.
	var strict, toolchain any = false, nil
	if f, err := modfile.Parse("go.mod", bytes.Clone(data), nil); err == nil {
		strict = true
		if f.Toolchain != nil {
			toolchain = f.Toolchain.Name
		}
	}
	f, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		var list modfile.ErrorList
		if !errors.As(err, &list) || len(list) == 0 {
			return answer{"unknown": err.Error()}
		}
		return answer{"line": list[0].Pos.Line}
	}
	var path, version any
	if f.Module != nil {
		path = f.Module.Mod.Path
	}
	if f.Go != nil {
		version = f.Go.Version
	}
	requires := [][]any{}
	for _, r := range f.Require {
		requires = append(requires, []any{r.Mod.Path, r.Mod.Version, r.Indirect})
	}
	return answer{"module": path, "go": version, "strict": strict, "toolchain": toolchain, "requires": requires}
}

// goSum splits a file as the go command's modfetch does, and checks each line with Go's own functions.
func goSum(data []byte) answer {
	const emptyGoMod = "h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY="
	sums := [][]any{}
	for i, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 {
			return answer{"line": i + 1}
		}
		digest, known := strings.CutPrefix(fields[2], "h1:")
		if !known || fields[2] == emptyGoMod {
			continue
		}
		version, isGoMod := strings.CutSuffix(fields[1], "/go.mod")
		_, badVersion := module.EscapeVersion(version)
		hash, badHash := base64.StdEncoding.Strict().DecodeString(digest)
		if badHash != nil || len(hash) != 32 || badVersion != nil || module.CheckPath(fields[0]) != nil {
			return answer{"line": i + 1}
		}
		sums = append(sums, []any{fields[0], version, isGoMod, fields[2]})
	}
	return answer{"sums": sums}
}

// printable is a character a line of unicode.IsPrint: 1 yes, 0 no, and 2 for what this Go's tables do not know.
func printable() string {
	// C as a whole holds the unassigned characters too.
	known := []*unicode.RangeTable{unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs}
	var b strings.Builder
	for r := rune(0); r <= unicode.MaxRune; r++ {
		switch {
		case unicode.IsPrint(r):
			b.WriteByte('1')
		case unicode.In(r, known...):
			b.WriteByte('0')
		default:
			b.WriteByte('2')
		}
	}
	return b.String()
}
