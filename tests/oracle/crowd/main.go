// Command crowd asks for one file with many clients at the same time, each on a connection of its own, or waits for the first
// answer of a server that it starts.
//
// Usage: crowd CLIENTS URL prints the seconds until the last client has all of it, and until the first has.
// crowd start URL COMMAND... prints the milliseconds from the start of the command to the first 200, and ends the command.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 3 && os.Args[1] == "start" {
		start(os.Args[2], os.Args[3:])
		return
	}
	if len(os.Args) != 3 {
		log.Fatal("usage: crowd CLIENTS URL | crowd start URL COMMAND...")
	}
	clients, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	crowd(clients, os.Args[2])
}

func crowd(clients int, url string) {
	begin, took := time.Now(), make([]time.Duration, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			if err := get(url); err != nil {
				log.Fatal(err)
			}
			took[i] = time.Since(begin)
		})
	}
	all.Wait()
	fmt.Printf("%.4f %.4f\n", slices.Max(took).Seconds(), slices.Min(took).Seconds())
}

// get reads a whole body over a new connection.
func get(url string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func start(url string, command []string) {
	server := exec.Command(command[0], command[1:]...)
	begin := time.Now()
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	for get(url) != nil {
		if time.Since(begin) > 30*time.Second {
			log.Fatalf("%s: no 200 in 30 s", url)
		}
		time.Sleep(500 * time.Microsecond)
	}
	fmt.Printf("%.1f\n", float64(time.Since(begin).Microseconds())/1000)
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		log.Fatal(err)
	}
	server.Wait() // by the signal
}
