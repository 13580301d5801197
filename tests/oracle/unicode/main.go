// Command unicode writes src/gomod/unicode_tables.rs: the letters and the case folding that this Go release knows.
//
//	cd tests/oracle && go run ./unicode > ../../src/gomod/unicode_tables.rs
package main

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// smallest returns what x/mod/zip compares file names by: the smallest rune that folds to r.
func smallest(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

func table(comment, name, kind string, numbers []int) {
	fmt.Printf("\n%s\n#[rustfmt::skip]\npub(super) const %s: &[%s] = &[", comment, name, kind)
	column := 1000
	for _, n := range numbers {
		text := fmt.Sprintf("%d,", n)
		if column+1+len(text) > 140 {
			fmt.Print("\n   ")
			column = 3
		}
		fmt.Print(" " + text)
		column += 1 + len(text)
	}
	fmt.Println("\n];")
}

func main() {
	fmt.Printf("//! Unicode %s as Go knows it. Written by `tests/oracle/unicode`; do not edit.\n", unicode.Version)
	var edges []int
	inside := false
	for r := rune(utf8.RuneSelf); r <= unicode.MaxRune+1; r++ {
		if unicode.IsLetter(r) != inside {
			edges = append(edges, int(r))
			inside = !inside
		}
	}
	table("/// Where runs of non-ASCII letters begin (even places) and end (odd places, exclusive).", "LETTER_EDGES", "u32", edges)

	type pair struct{ from, to rune }
	var pairs []pair
	for r := rune(utf8.RuneSelf); r <= unicode.MaxRune; r++ {
		if to := smallest(r); to != r {
			pairs = append(pairs, pair{r, to})
		}
	}
	var runs []int
	for i := 0; i < len(pairs); {
		first, step, j := pairs[i], rune(1), i+1
		if j < len(pairs) && pairs[j].from-first.from <= 2 {
			step = pairs[j].from - first.from
		}
		for j < len(pairs) && pairs[j].from-pairs[j-1].from == step && pairs[j].to-pairs[j].from == first.to-first.from {
			j++
		}
		runs = append(runs, int(first.from), int(pairs[j-1].from), int(step), int(first.to-first.from))
		i = j
	}
	table("/// Fours: first and last code point of a run, its step, and what to add to fold one.", "FOLDS", "i32", runs)
}
