package chaos

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// echo answers every byte with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// ask sends a byte and waits for it; a dead line is one that neither answers nor closes for a while.
func ask(conn net.Conn, patience time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// harmed is what a fault does to the link of p0 to the first broker, and to its other one.
type harmed struct {
	fault   fault
	refused bool // connections are
	alive   bool // connections still answer
	all     bool // the link to the other broker is harmed too
}

func TestNetwork_EachFaultHarmsItsLinksAloneAndIsUndone(t *testing.T) {
	n := newNetwork([]string{echo(t), echo(t)})
	t.Cleanup(n.close)
	via := map[string]map[string]string{}
	for _, from := range []string{"p0", "p1"} {
		var err error
		if via[from], err = n.connect(from); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []harmed{
		{fault{kind: kindCut}, true, false, true},
		{fault{kind: kindCutLink}, true, false, false},
		{fault{kind: kindDelay, seed: 7}, false, true, false},
		{fault{kind: kindHalfOpen, seed: 0}, false, false, false},
		{fault{kind: kindHalfOpen, seed: 1}, false, false, false},
		{fault{kind: kindHalfOpen, seed: 2}, false, false, false},
	} {
		t.Run(c.fault.kind, func(t *testing.T) { c.check(t, n, via) })
	}
}

func (c *harmed) check(t *testing.T, n *network, via map[string]map[string]string) {
	dial := func(from, broker string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", via[from][broker])
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			err = ask(conn, 10*time.Second)
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	hit, other, neighbour := dial("p0", n.brokers[0]), dial("p0", n.brokers[1]), dial("p1", n.brokers[0])
	_, heal, err := n.harm(c.fault, "p0")
	if err != nil {
		t.Fatal(err)
	}
	patience, begun := 300*time.Millisecond, time.Now()
	if c.alive {
		patience = 10 * time.Second
	}
	if err := ask(hit, patience); (err == nil) != c.alive {
		t.Errorf("the link answers: %v, want %t", err, c.alive)
	}
	if took := time.Since(begun); c.alive && took < 2*25*time.Millisecond {
		t.Errorf("the delayed link answers within %v", took)
	}
	conn, err := net.Dial("tcp", via["p0"][n.brokers[0]])
	if err == nil {
		conn.Close()
	}
	if (err != nil) != c.refused {
		t.Errorf("a new connection: %v, want it refused: %t", err, c.refused)
	}
	if err := ask(other, 10*time.Second); (err != nil) != c.all {
		t.Errorf("the link to the other broker: %v, want it harmed: %t", err, c.all)
	}
	if err := ask(neighbour, 10*time.Second); err != nil {
		t.Errorf("another's link: %v", err)
	}
	if err := heal(context.Background()); err != nil {
		t.Fatal(err)
	}
	dial("p0", n.brokers[0])
}
