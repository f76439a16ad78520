package view

import (
	"encoding/base64"
	"encoding/json"
	"runtime/debug"
	"sync"
)

// pageToken says where the next page of a list begins. It holds for the list that it was given for, in any view of the
// job's generation, at any time: pages follow the order of IDs and not that of changes.
type pageToken struct {
	Generation uint32 `json:"g"`
	Prefix     string `json:"p,omitempty"`
	Flag       string `json:"f,omitempty"`
	After      string `json:"a,omitempty"`
}

func (t pageToken) String() string {
	b, _ := json.Marshal(t) // IDs are UTF-8, so nothing is lost
	return base64.RawURLEncoding.EncodeToString(b)
}

// resume reads a token that String gave for the same list; "" is the beginning.
func (t pageToken) resume(text string) (after string, err error) {
	if text == "" {
		return "", nil
	}
	var found pageToken
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &found)
	}
	if err != nil || found.After == "" {
		return "", &Invalid{"page_token is none that a view gave"}
	}
	t.After = found.After
	if found != t {
		return "", &Invalid{"page_token belongs to another list: the flag, the prefix or the generation differs"}
	}
	return found.After, nil
}

// build names the version of the program.
var build = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += " " + s.Value
		}
	}
	return version
})
