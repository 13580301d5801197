package main

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// log has the stored hashes of all records asked about so far; record i is the text "record i\n".
var log struct {
	records int64
	stored  []tlog.Hash
}

var readLog = tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hashes[i] = log.stored[index]
	}
	return hashes, nil
})

func growLog(size int64) {
	for ; log.records < size; log.records++ {
		hashes, err := tlog.StoredHashes(log.records, fmt.Appendf(nil, "record %d\n", log.records), readLog)
		if err != nil {
			panic(err)
		}
		log.stored = append(log.stored, hashes...)
	}
}

func root(size int64) tlog.Hash {
	growLog(size)
	hash, err := tlog.TreeHash(size, readLog)
	if err != nil {
		panic(err)
	}
	return hash
}

func parseHashes(texts []string) []tlog.Hash {
	hashes := make([]tlog.Hash, len(texts))
	for i, text := range texts {
		hashes[i] = parseHash(text)
	}
	return hashes
}

func parseHash(text string) tlog.Hash {
	hash, err := tlog.ParseHash(text)
	if err != nil {
		panic(err)
	}
	return hash
}

func proof(hashes []tlog.Hash, err error) answer {
	if err != nil {
		return refused(err)
	}
	a := answer{OK: true}
	for _, hash := range hashes {
		a.Names = append(a.Names, hash.String())
	}
	return a
}

func aboutTrees(q request) answer {
	switch q.Op {
	case "roots":
		a := answer{OK: true}
		for size := int64(0); size <= q.Size; size++ {
			a.Names = append(a.Names, root(size).String())
		}
		return a
	case "prove_record":
		growLog(q.Size)
		hashes, err := tlog.ProveRecord(q.Size, q.Older, readLog)
		return proof(hashes, err)
	case "prove_tree":
		growLog(q.Size)
		hashes, err := tlog.ProveTree(q.Size, q.Older, readLog)
		return proof(hashes, err)
	case "check_record":
		return verdict(tlog.CheckRecord(parseHashes(q.Proof), q.Size, parseHash(q.Hash), q.Older, parseHash(q.Other)))
	case "check_tree":
		return verdict(tlog.CheckTree(parseHashes(q.Proof), q.Size, parseHash(q.Hash), q.Older, parseHash(q.Other)))
	}
	tiles := &tiles{height: q.Height, given: q.Tiles}
	reader := tlog.TileHashReader(tlog.Tree{N: q.Size, Hash: parseHash(q.Hash)}, tiles)
	var hash tlog.Hash
	var err error
	if q.Op == "tiles_record" {
		var hashes []tlog.Hash
		if hashes, err = reader.ReadHashes([]int64{tlog.StoredHashIndex(0, q.Older)}); err == nil {
			hash = hashes[0]
		}
	} else if hash, err = tlog.TreeHash(q.Older, reader); err == nil && hash != parseHash(q.Other) {
		err = errors.New("fork")
	}
	a := verdict(err)
	for _, tile := range tiles.asked {
		a.Unverified = append(a.Unverified, tile.Path())
	}
	a.Tiles = tiles.sent
	if err == nil {
		a.Names = []string{hash.String()}
	}
	return a
}

// tiles hands out what it was given, or else the log's own, and keeps what was asked.
type tiles struct {
	height int
	given  [][]byte
	asked  []tlog.Tile
	sent   [][]byte
}

func (t *tiles) Height() int { return t.height }

func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t *tiles) ReadTiles(asked []tlog.Tile) ([][]byte, error) {
	t.asked = asked
	if t.given != nil {
		return t.given, nil
	}
	for _, tile := range asked {
		// All of this tile is in the log, for it is a tile of a tree that is.
		data, err := tlog.ReadTileData(tile, readLog)
		if err != nil {
			return nil, err
		}
		t.sent = append(t.sent, data)
	}
	return t.sent, nil
}
