package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// netpol enforces networking.k8s.io/v1 NetworkPolicy (IPv4, one node) in the mangle table, which is
// traversed after Service DNAT and before kube-proxy's filter rules. Node-to-pod traffic is never
// filtered. Each change renders all rules anew and swaps them in by one iptables-restore transaction.
func netpol(args []string) error {
	fs := flag.NewFlagSet("netpol", flag.ExitOnError)
	kc := fs.String("kubeconfig", "", "")
	cut := fs.Bool("cut-established", false, "apply policies to packets of established connections too")
	_ = fs.Parse(args)
	cfg, err := clientcmd.BuildConfigFromFlags("", *kc)
	if err != nil {
		return err
	}
	f := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(cfg), 0)
	pods, nss, nps := f.Core().V1().Pods(), f.Core().V1().Namespaces(), f.Networking().V1().NetworkPolicies()
	dirty := make(chan struct{}, 1)
	mark := func() {
		select {
		case dirty <- struct{}{}:
		default:
		}
	}
	h := cache.ResourceEventHandlerFuncs{AddFunc: func(any) { mark() }, UpdateFunc: func(_, _ any) { mark() }, DeleteFunc: func(any) { mark() }}
	for _, i := range []cache.SharedIndexInformer{pods.Informer(), nss.Informer(), nps.Informer()} {
		_, _ = i.AddEventHandler(h)
	}
	f.Start(nil)
	f.WaitForCacheSync(nil)
	mark()
	last := ""
	for range dirty {
		p, _ := pods.Lister().List(labels.Everything())
		n, _ := nss.Lister().List(labels.Everything())
		k, _ := nps.Lister().List(labels.Everything())
		rules := render(p, n, k, *cut)
		if rules == last {
			continue
		}
		if err := apply(rules); err != nil {
			klog.ErrorS(err, "apply")
			time.AfterFunc(time.Second, mark)
			continue
		}
		last = rules
		klog.InfoS("applied", "policies", len(k), "rules", strings.Count(rules, "\n-A "))
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

var chainRE = regexp.MustCompile(`(?m)^:(GMCNP[^ ]*) `)

func apply(rules string) error {
	old, err := exec.Command("iptables-save", "-t", "mangle").Output()
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("*mangle\n" + rules)
	for _, m := range chainRE.FindAllStringSubmatch(string(old), -1) {
		if !strings.Contains(rules, ":"+m[1]+" ") {
			fmt.Fprintf(&b, ":%s - [0:0]\n-X %s\n", m[1], m[1])
		}
	}
	for _, hook := range []string{"FORWARD", "INPUT"} {
		if !bytes.Contains(old, []byte("-A "+hook+" -j GMCNP\n")) {
			fmt.Fprintf(&b, "-I %s -j GMCNP\n", hook)
		}
	}
	b.WriteString("COMMIT\n")
	c := exec.Command("iptables-restore", "--noflush", "-w", "5")
	c.Stdin = strings.NewReader(b.String())
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %s", err, out)
	}
	return nil
}

type dir struct{ letter, self, peer string }

func render(pods []*corev1.Pod, nss []*corev1.Namespace, nps []*netv1.NetworkPolicy, cut bool) string {
	nsl := map[string]labels.Set{}
	for _, n := range nss {
		nsl[n.Name] = n.Labels
	}
	live := pods[:0:0]
	for _, p := range pods {
		if !p.Spec.HostNetwork && p.Status.PodIP != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			live = append(live, p)
		}
	}
	sort.Slice(live, func(i, j int) bool { return live[i].UID < live[j].UID })
	sort.Slice(nps, func(i, j int) bool { return nps[i].UID < nps[j].UID })
	var head, body strings.Builder
	head.WriteString(":GMCNP - [0:0]\n")
	if cut {
		body.WriteString("-A GMCNP -m conntrack --ctdir REPLY -j RETURN\n-A GMCNP -m conntrack --ctstate RELATED -j RETURN\n")
	} else {
		body.WriteString("-A GMCNP -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n")
	}
	for _, p := range live {
		for _, d := range []dir{{"E", "-s", "-d"}, {"I", "-d", "-s"}} {
			isolated, rules := false, ""
			for _, np := range nps {
				if np.Namespace != p.Namespace || !has(np, d.letter) || !match(&np.Spec.PodSelector, p.Labels) {
					continue
				}
				isolated = true
				if d.letter == "E" {
					for _, r := range np.Spec.Egress {
						rules += rule(p, np.Namespace, r.To, r.Ports, d, live, nsl)
					}
				} else {
					for _, r := range np.Spec.Ingress {
						rules += rule(p, np.Namespace, r.From, r.Ports, d, live, nsl)
					}
				}
			}
			if isolated {
				c := fmt.Sprintf("GMCNP-%s-%x", d.letter, sha256.Sum256([]byte(p.UID)))[:20]
				fmt.Fprintf(&head, ":%s - [0:0]\n", c)
				fmt.Fprintf(&body, "-A GMCNP %s %s/32 -j %s\n", d.self, p.Status.PodIP, c)
				body.WriteString(strings.ReplaceAll(rules, "@", c))
				fmt.Fprintf(&body, "-A %s %s %s/32 -j RETURN\n-A %s -j DROP\n", c, d.peer, p.Status.PodIP, c)
			}
		}
	}
	return head.String() + body.String()
}

func has(np *netv1.NetworkPolicy, letter string) bool {
	if len(np.Spec.PolicyTypes) == 0 {
		return letter == "I" || len(np.Spec.Egress) > 0
	}
	for _, t := range np.Spec.PolicyTypes {
		if string(t[0]) == letter {
			return true
		}
	}
	return false
}

func match(s *metav1.LabelSelector, l map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(l))
}

// rule renders one ingress or egress rule: the product of its peers and its ports.
func rule(p *corev1.Pod, ns string, peers []netv1.NetworkPolicyPeer, ports []netv1.NetworkPolicyPort, d dir, pods []*corev1.Pod, nsl map[string]labels.Set) string {
	var b strings.Builder
	emit := func(peer string, ps []string) {
		for _, m := range ps {
			fmt.Fprintf(&b, "-A @%s%s -j RETURN\n", peer, m)
		}
	}
	if len(peers) == 0 {
		emit("", portMatch(ports, p))
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			cidrs := []netip.Prefix{netip.MustParsePrefix(peer.IPBlock.CIDR)}
			for _, e := range peer.IPBlock.Except {
				next := []netip.Prefix{}
				for _, c := range cidrs {
					next = append(next, minus(c, netip.MustParsePrefix(e))...)
				}
				cidrs = next
			}
			for _, c := range cidrs {
				if c.Addr().Is4() {
					emit(" "+d.peer+" "+c.String(), portMatch(ports, p))
				}
			}
			continue
		}
		for _, q := range pods {
			if peer.NamespaceSelector == nil && q.Namespace != ns || peer.NamespaceSelector != nil && !match(peer.NamespaceSelector, nsl[q.Namespace]) ||
				peer.PodSelector != nil && !match(peer.PodSelector, q.Labels) {
				continue
			}
			target := q // whose container ports a named port means
			if d.letter == "I" {
				target = p
			}
			emit(" "+d.peer+" "+q.Status.PodIP+"/32", portMatch(ports, target))
		}
	}
	return b.String()
}

func portMatch(ports []netv1.NetworkPolicyPort, named *corev1.Pod) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	out := []string{}
	for _, pp := range ports {
		proto := corev1.ProtocolTCP
		if pp.Protocol != nil {
			proto = *pp.Protocol
		}
		m := " -p " + strings.ToLower(string(proto))
		switch {
		case pp.Port == nil:
			out = append(out, m)
		case pp.Port.StrVal != "":
			for _, c := range named.Spec.Containers {
				for _, cp := range c.Ports {
					if cp.Name == pp.Port.StrVal && cp.Protocol == proto {
						out = append(out, fmt.Sprintf("%s --dport %d", m, cp.ContainerPort))
					}
				}
			}
		case pp.EndPort != nil:
			out = append(out, fmt.Sprintf("%s --dport %d:%d", m, pp.Port.IntVal, *pp.EndPort))
		default:
			out = append(out, fmt.Sprintf("%s --dport %d", m, pp.Port.IntVal))
		}
	}
	return out
}

// minus returns c without e, as a list of prefixes.
func minus(c, e netip.Prefix) []netip.Prefix {
	c, e = c.Masked(), e.Masked()
	if !c.Overlaps(e) {
		return []netip.Prefix{c}
	}
	if e.Bits() <= c.Bits() {
		return nil
	}
	hi := c.Addr().AsSlice()
	hi[c.Bits()/8] |= 0x80 >> (c.Bits() % 8)
	h, _ := netip.AddrFromSlice(hi)
	return append(minus(netip.PrefixFrom(c.Addr(), c.Bits()+1), e), minus(netip.PrefixFrom(h, c.Bits()+1), e)...)
}
