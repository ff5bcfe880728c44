package engine

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"github.com/cairn-backup/cairn/manifest"
)

type forgetPlanJSON struct {
	Record   uint64            `json:"record"`
	Policy   string            `json:"policy"`
	GroupBy  string            `json:"group_by"`
	At       manifest.Time     `json:"at"`
	TimeZone string            `json:"time_zone"`
	Keep     int               `json:"keep"`   // snapshots
	Forget   int               `json:"forget"` // snapshots
	Groups   []forgetGroupJSON `json:"groups"`
}

type forgetGroupJSON struct {
	Host      string           `json:"host"`
	Name      string           `json:"name"`
	Roots     []forgetRootJSON `json:"roots"`
	Snapshots []forgottenJSON  `json:"snapshots"`
}

type forgetRootJSON struct {
	Path    string `json:"path"`
	PathB64 string `json:"path_b64,omitempty"` // if it is not UTF-8
}

type forgottenJSON struct {
	ID      manifest.ID        `json:"id"`
	Time    manifest.Time      `json:"time"`
	Host    string             `json:"host"`
	Files   uint64             `json:"files"`
	Bytes   uint64             `json:"bytes"`
	Tags    []string           `json:"tags"`
	Pinned  bool               `json:"pinned"`
	Keep    bool               `json:"keep"`
	Doubt   manifest.Doubt     `json:"doubt"` // "" if there is none
	Reasons []forgetReasonJSON `json:"reasons"`
}

type forgetReasonJSON struct {
	Rule   manifest.Rule `json:"rule"`
	Bucket string        `json:"bucket,omitempty"`
	Newer  *manifest.ID  `json:"newer,omitempty"`
	Text   string        `json:"text"`
}

// MarshalJSON writes the decisions group by group, the oldest snapshot first,
// with the reasons for each.
func (p *ForgetPlan) MarshalJSON() ([]byte, error) {
	doc := forgetPlanJSON{
		Record: p.Record, Policy: p.Policy.String(), GroupBy: p.Policy.GroupBy.String(),
		At: manifest.TimeOf(p.At), TimeZone: p.At.Location().String(),
		Keep: p.Total() - len(p.forget), Forget: len(p.forget), Groups: make([]forgetGroupJSON, len(p.Groups)),
	}
	for i, g := range p.Groups {
		out := forgetGroupJSON{Host: g.Host, Name: g.Name, Roots: []forgetRootJSON{}, Snapshots: make([]forgottenJSON, len(g.Decisions))}
		for _, r := range g.Roots {
			root := forgetRootJSON{Path: r.Path}
			if !utf8.ValidString(r.Path) {
				root.PathB64 = base64.StdEncoding.EncodeToString([]byte(r.Path))
			}
			out.Roots = append(out.Roots, root)
		}
		for i, d := range g.Decisions {
			out.Snapshots[i] = forgottenOf(d)
		}
		doc.Groups[i] = out
	}
	return json.Marshal(doc)
}

func forgottenOf(d manifest.Decision) forgottenJSON {
	s := d.Snapshot
	j := forgottenJSON{
		ID: s.ID, Time: s.Start, Host: s.Host, Files: s.Stats.Files, Bytes: s.Stats.Bytes, Tags: s.Tags, Pinned: s.Pinned,
		Keep: d.Keep, Doubt: d.Doubt, Reasons: make([]forgetReasonJSON, len(d.Reasons)),
	}
	if j.Tags == nil {
		j.Tags = []string{}
	}
	texts := d.Explain()
	for i, r := range d.Reasons {
		j.Reasons[i] = forgetReasonJSON{Rule: r.Rule, Bucket: r.Bucket, Text: texts[i]}
		if !r.Newer.IsZero() {
			j.Reasons[i].Newer = &r.Newer
		}
	}
	return j
}
