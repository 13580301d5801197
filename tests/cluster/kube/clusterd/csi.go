package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/klog/v2"
	reg "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// A CSI driver whose volumes are XFS images on loop devices: real size limits, online expansion.
// (Not ext4: growing a mounted ext4 needs CAP_SYS_RESOURCE, which root may lack.)
// It registers itself with kubelet; external-provisioner and external-resizer talk to the same socket.
const (
	csiName = "loop.gomodcache.test"
	csiSock = "/var/lib/kubelet/plugins/loop.gomodcache.test/csi.sock"
	regSock = "/var/lib/kubelet/plugins_registry/loop.gomodcache.test-reg.sock"
)

type drv struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	reg.UnimplementedRegistrationServer
	dir string
}

// csiMain DIR: serves the driver; images live in DIR.
func csiMain(a []string) error {
	d := &drv{dir: a[0]}
	for _, p := range []string{d.dir, filepath.Dir(csiSock), filepath.Dir(regSock)} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	logged := grpc.UnaryInterceptor(func(ctx context.Context, req any, i *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		res, err := h(ctx, req)
		if !strings.HasSuffix(i.FullMethod, "Probe") && !strings.HasSuffix(i.FullMethod, "Capabilities") {
			klog.InfoS(i.FullMethod, "req", fmt.Sprint(req), "err", err)
		}
		return res, err
	})
	s, r := grpc.NewServer(logged), grpc.NewServer(logged)
	csi.RegisterIdentityServer(s, d)
	csi.RegisterControllerServer(s, d)
	csi.RegisterNodeServer(s, d)
	reg.RegisterRegistrationServer(r, d)
	errs := make(chan error)
	for sock, srv := range map[string]*grpc.Server{csiSock: s, regSock: r} {
		_ = os.Remove(sock)
		l, err := net.Listen("unix", sock)
		if err != nil {
			return err
		}
		go func() { errs <- srv.Serve(l) }()
	}
	return <-errs
}

func sh(cmd ...string) error {
	if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
		return status.Errorf(codes.Internal, "%v: %v: %s", cmd, err, out)
	}
	return nil
}
func (d *drv) img(id string) string { return filepath.Join(d.dir, filepath.Base(id)+".img") }
func mounted(p string) bool         { return exec.Command("mountpoint", "-q", p).Run() == nil }

// registration
func (d *drv) GetInfo(context.Context, *reg.InfoRequest) (*reg.PluginInfo, error) {
	return &reg.PluginInfo{Type: reg.CSIPlugin, Name: csiName, Endpoint: csiSock, SupportedVersions: []string{"1.0.0"}}, nil
}
func (d *drv) NotifyRegistrationStatus(context.Context, *reg.RegistrationStatus) (*reg.RegistrationStatusResponse, error) {
	return &reg.RegistrationStatusResponse{}, nil
}

// identity
func (d *drv) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: csiName, VendorVersion: "1"}, nil
}
func (d *drv) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
func (d *drv) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}}},
	}}, nil
}

// controller
func (d *drv) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	r := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_EXPAND_VOLUME} {
		r.Capabilities = append(r.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}
	return r, nil
}
func (d *drv) CreateVolume(_ context.Context, q *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	n := max(q.GetCapacityRange().GetRequiredBytes(), 32<<20)
	if _, err := os.Stat(d.img(q.Name)); err != nil {
		if err := sh("truncate", "-s", fmt.Sprint(n), d.img(q.Name)); err != nil {
			return nil, err
		}
		// --unsupported: for filesystems smaller than 300 MiB
		if err := sh("mkfs.xfs", "-q", "-f", "--unsupported", d.img(q.Name)); err != nil {
			return nil, err
		}
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: q.Name, CapacityBytes: n}}, nil
}
func (d *drv) DeleteVolume(_ context.Context, q *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	_ = os.Remove(d.img(q.VolumeId))
	return &csi.DeleteVolumeResponse{}, nil
}
func (d *drv) ControllerExpandVolume(_ context.Context, q *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	n := q.GetCapacityRange().GetRequiredBytes()
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: n, NodeExpansionRequired: true}, sh("truncate", "-s", ">"+fmt.Sprint(n), d.img(q.VolumeId))
}
func (d *drv) ValidateVolumeCapabilities(_ context.Context, q *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: q.VolumeCapabilities}}, nil
}

// node
func (d *drv) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node"}, nil
}
func (d *drv) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	r := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csi.NodeServiceCapability_RPC_EXPAND_VOLUME, csi.NodeServiceCapability_RPC_GET_VOLUME_STATS} {
		r.Capabilities = append(r.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return r, nil
}
func (d *drv) NodeStageVolume(_ context.Context, q *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if mounted(q.StagingTargetPath) {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	return &csi.NodeStageVolumeResponse{}, sh("mount", "-o", "loop", d.img(q.VolumeId), q.StagingTargetPath)
}
func (d *drv) NodeUnstageVolume(_ context.Context, q *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, unmount(q.StagingTargetPath)
}
func (d *drv) NodePublishVolume(_ context.Context, q *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if mounted(q.TargetPath) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := os.MkdirAll(q.TargetPath, 0o750); err != nil {
		return nil, err
	}
	if err := sh("mount", "--bind", q.StagingTargetPath, q.TargetPath); err != nil || !q.Readonly {
		return &csi.NodePublishVolumeResponse{}, err
	}
	return &csi.NodePublishVolumeResponse{}, sh("mount", "-o", "remount,bind,ro", q.TargetPath)
}
func (d *drv) NodeUnpublishVolume(_ context.Context, q *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(q.TargetPath); err != nil {
		return nil, err
	}
	_ = os.Remove(q.TargetPath)
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
func unmount(p string) error {
	if !mounted(p) {
		return nil
	}
	return sh("umount", p)
}
func (d *drv) NodeExpandVolume(_ context.Context, q *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	out, err := exec.Command("findmnt", "-nfo", "SOURCE", q.VolumePath).Output()
	if err != nil {
		return nil, err
	}
	dev := strings.SplitN(strings.TrimSpace(string(out)), "[", 2)[0]
	if err := sh("losetup", "-c", dev); err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: q.GetCapacityRange().GetRequiredBytes()}, sh("xfs_growfs", q.VolumePath)
}
func (d *drv) NodeGetVolumeStats(_ context.Context, q *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	var f syscall.Statfs_t
	if err := syscall.Statfs(q.VolumePath, &f); err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	b := int64(f.Bsize)
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: int64(f.Blocks) * b, Available: int64(f.Bavail) * b, Used: int64(f.Blocks-f.Bfree) * b},
		{Unit: csi.VolumeUsage_INODES, Total: int64(f.Files), Available: int64(f.Ffree), Used: int64(f.Files - f.Ffree)}}}, nil
}
