package hostile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/broker"
	"github.com/tidemark/tidemark/internal/child"
	"github.com/tidemark/tidemark/view/guard"
)

const jobFile = `name: hostile
input:
  topic: hostile-events
  id: event.id
  time: event.time
totals:
  sum: {sum: event.value}
flags:
  big: {when: totals.sum >= 100}
`

const (
	ids             = 1000
	eventsPerSecond = 200
)

// subject is a view, and what makes its table.
type subject struct {
	limits Limits
	addr   string
	pool   *x509.CertPool
	tokens map[string]string // by name: good, flood, lazy, admin
	view   *exec.Cmd
	log    string // the file with what the view said

	broker   *broker.Broker
	children []*exec.Cmd
	feeding  sync.WaitGroup
	cease    context.CancelFunc
}

func startSubject(ctx context.Context, binary, dir string, limits Limits) (s *subject, err error) {
	ctx, cease := context.WithCancel(ctx)
	s = &subject{limits: limits, tokens: map[string]string{}, log: filepath.Join(dir, "view.log"), cease: cease}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.broker, err = broker.Start(ctx, broker.Config{Dir: filepath.Join(dir, "broker")}); err != nil {
		return s, err
	}
	job := filepath.Join(dir, "job.yaml")
	if err := errors.Join(os.WriteFile(job, []byte(jobFile), 0o600), s.certificate(dir), s.principals(dir)); err != nil {
		return s, err
	}
	common := []string{"--job", job, "--brokers", strings.Join(s.broker.Addrs(), ","), "--log", "json"}
	if err := s.feed(ctx, exec.Command(binary, append([]string{"produce", "--create-topics", "--partitions", "2"}, common...)...)); err != nil {
		return s, err
	}
	if err := s.start(exec.Command(binary, append([]string{"run", "--state", filepath.Join(dir, "state")}, common...)...), filepath.Join(dir, "run.log")); err != nil {
		return s, err
	}
	s.view = exec.Command(binary, append([]string{
		"view", "--listen", "127.0.0.1:0", "--state", filepath.Join(dir, "view"), "--serve-tls-cert", filepath.Join(dir, "cert.pem"), "--serve-tls-key", filepath.Join(dir, "key.pem"),
		"--principals", filepath.Join(dir, "principals"), "--client-connections-max", strconv.Itoa(limits.Connections), "--client-rate", strconv.Itoa(limits.Rate),
		"--client-failures", strconv.Itoa(limits.Failures), "--client-watchers-max", strconv.Itoa(limits.Watchers), "--header-timeout", "3s", "--read-timeout", "3s", "--idle-timeout", "3s", "--log-requests",
	}, common...)...)
	s.view.Env = append(os.Environ(), "GOMEMLIMIT=", "GOGC=")
	if err := s.start(s.view, s.log); err != nil {
		return s, err
	}
	return s, s.ready(ctx)
}

// certificate makes a certificate for the loopback interface, which signs itself.
func (s *subject) certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "view"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.pool = x509.NewCertPool()
	s.pool.AppendCertsFromPEM(cert)
	return errors.Join(os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}

func (s *subject) principals(dir string) error {
	var file bytes.Buffer
	for name, roles := range map[string]string{"good": "read,watch", "flood": "read", "lazy": "watch", "first": "read", "admin": "admin"} {
		set, err := guard.ParseRoles(roles)
		if err != nil {
			return err
		}
		token, line, err := guard.NewToken(name, set, time.Time{})
		if err != nil {
			return err
		}
		s.tokens[name] = token
		fmt.Fprintln(&file, line)
	}
	return os.WriteFile(filepath.Join(dir, "principals"), file.Bytes(), 0o600)
}

func (s *subject) start(cmd *exec.Cmd, log string) error {
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := child.Start(cmd); err != nil {
		return err
	}
	s.children = append(s.children, cmd)
	return nil
}

// feed has a producer write events for as long as the run lasts.
func (s *subject) feed(ctx context.Context, cmd *exec.Cmd) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := child.Start(cmd); err != nil {
		return err
	}
	s.children = append(s.children, cmd)
	s.feeding.Go(func() {
		defer in.Close()
		n := 0
		every(ctx, 100*time.Millisecond, func() {
			for range eventsPerSecond / 10 {
				fmt.Fprintf(in, "{\"id\":\"id-%d\",\"time\":%d,\"value\":1}\n", n%ids, time.Now().UnixMilli())
				n++
			}
		})
	})
	return nil
}

var listening = regexp.MustCompile(`"url":"https://([0-9.:]+)"`)

// ready waits until the view answers for its IDs.
func (s *subject) ready(ctx context.Context) error {
	client := s.client("127.0.0.1")
	defer client.CloseIdleConnections()
	last := "nothing"
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.addr == "" {
			text, err := os.ReadFile(s.log)
			m := listening.FindSubmatch(text)
			if last = string(text); err != nil || m == nil {
				continue
			}
			s.addr = string(m[1])
		}
		status, body, err := s.get(ctx, client, "first", "/v1/ids/id-1")
		if last = fmt.Sprint(status, string(body), err); status == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("the view did not come up: %s", last)
}

// client comes from an address of the loopback network, so that attackers and others are not the same client.
func (s *subject) client(from string) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: s.tls(), ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16, DialContext: dialer(from).DialContext,
	}}
}

func dialer(from string) *net.Dialer {
	return &net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
}

func (s *subject) tls() *tls.Config {
	return &tls.Config{RootCAs: s.pool, MinVersion: tls.VersionTLS12}
}

func (s *subject) get(ctx context.Context, c *http.Client, who, path string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.addr+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+s.tokens[who])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// figures are the view's metrics, by name and labels.
func (s *subject) figures(ctx context.Context) (map[string]float64, error) {
	client := s.client("127.0.0.1")
	defer client.CloseIdleConnections()
	status, body, err := s.get(ctx, client, "admin", "/metrics")
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("metrics: %d %s %w", status, body, errors.Join(err))
	}
	all := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			all[name] = n
		}
	}
	return all, nil
}

// refused is what the guard refused, by reason.
func (s *subject) refused(ctx context.Context) (map[string]float64, error) {
	all, err := s.figures(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for name, n := range all {
		if reason, ok := strings.CutPrefix(name, `tidemark_guard_refused_total{reason="`); ok && n > 0 {
			found[strings.TrimSuffix(reason, `"}`)] = n
		}
	}
	found["watch_resets_slow"] = all[`tidemark_view_watch_resets_total{reason="slow"}`]
	return found, nil
}

// settled waits until nothing of the attackers is left in the view.
func (s *subject) settled(ctx context.Context) error {
	last := 0.0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		all, err := s.figures(ctx)
		if err != nil {
			return err
		}
		if last = all["tidemark_guard_streams_in_flight"]; last <= 1 { // the good client's own
			return nil
		}
	}
	return fmt.Errorf("a minute after the last attack %v streams are open", last)
}

// stop ends everything and waits for it.
func (s *subject) stop() error {
	s.cease()
	s.feeding.Wait()
	for _, cmd := range s.children {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it ends is of no matter here
		timer.Stop()
	}
	if s.broker != nil {
		return s.broker.Close()
	}
	return nil
}
