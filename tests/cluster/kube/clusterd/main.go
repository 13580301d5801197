// clusterd: the test cluster's own small daemons and probes.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/klog/v2"
)

func main() {
	klog.LogToStderr(true)
	cmds := map[string]func([]string) error{
		"netpol": netpol, "csi": csiMain, "relay": relay, "hello": hello, "lookup": lookup,
	}
	if len(os.Args) < 2 || cmds[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: clusterd netpol|csi|relay|hello|lookup ARGS")
		os.Exit(2)
	}
	if err := cmds[os.Args[1]](os.Args[2:]); err != nil {
		klog.ErrorS(err, os.Args[1])
		os.Exit(1)
	}
}

// lookup SERVER NAME: prints the addresses that one DNS server gives for a name.
func lookup(a []string) error {
	if len(a) != 2 {
		return fmt.Errorf("want SERVER NAME")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(a[0], "53"))
	}}
	ips, err := r.LookupIP(ctx, "ip4", a[1]+".")
	for _, ip := range ips {
		fmt.Println(ip)
	}
	return err
}
