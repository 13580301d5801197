package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// relay LISTEN DIAL, each "unix:PATH" or "tcp:HOST:PORT": carries bytes both ways and looks at none of
// them. A relay out of the cluster is two of these with a unix socket between: one in the outside
// namespace, one on the host, so that no route ever joins the two networks.
func relay(a []string) error {
	if len(a) != 2 {
		return fmt.Errorf("want LISTEN DIAL")
	}
	ln, la, ok1 := strings.Cut(a[0], ":")
	dn, da, ok2 := strings.Cut(a[1], ":")
	if !ok1 || !ok2 {
		return fmt.Errorf("want NETWORK:ADDRESS twice, not %q", a)
	}
	if ln == "unix" {
		_ = os.Remove(la)
	}
	l, err := net.Listen(ln, la)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			d, err := net.DialTimeout(dn, da, 20*time.Second)
			if err != nil {
				klog.ErrorS(err, "dial", "to", a[1])
				return
			}
			defer func() { _ = d.Close() }()
			var w sync.WaitGroup
			var up, down int64
			w.Go(func() { up = half(d, c) })
			w.Go(func() { down = half(c, d) })
			w.Wait()
			klog.InfoS("relayed", "to", a[1], "up", up, "down", down)
		}()
	}
}

// half copies one direction and passes its end on. A broken direction ends the other one too.
func half(dst, src net.Conn) int64 {
	n, err := io.Copy(dst, src)
	if w, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		_ = w.CloseWrite()
		return n
	}
	_, _ = dst.Close(), src.Close()
	return n
}

// hello ADDRESS...: an HTTP server that answers anything with one line; what the outside has to offer.
func hello(a []string) error {
	errs := make(chan error)
	for _, addr := range a {
		go func() {
			errs <- http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintln(w, "outside-ok")
			}))
		}()
	}
	return <-errs
}
