"""Entries of a journal in the export format: `entries.py FILE`; with another argument, one long entry more."""
import struct,sys
out=open(sys.argv[1],'wb')
t0=1795255200000000 # 2026-11-21T10:00:00Z
boot='9f3a5b1c2d4e4f60817263544536271a'
n=0
def e(fields, dt=1000):
    global n
    n+=1
    t=t0+n*dt
    out.write(b'__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n'%(t,5000000+n*dt,boot.encode()))
    base={'_MACHINE_ID':'3c1f0e6a8b5d4c7f9a2b1d0e4f6a8c7b','_HOSTNAME':'node-1'}
    for k,v in {**base,**fields}.items():
        if isinstance(v,str): v=v.encode()
        if b'\n' in v or b'\x00' in v or any(c>=0x80 or c<32 for c in v):
            out.write(k.encode()+b'\n'+struct.pack('<Q',len(v))+v+b'\n')
        else:
            out.write(k.encode()+b'='+v+b'\n')
    out.write(b'\n')
    return t
def unit(name,comm,pid,msg,prio='6',transport='stdout',**kw):
    t=t0+(n+1)*1000
    d={'PRIORITY':prio,'_TRANSPORT':transport,'SYSLOG_IDENTIFIER':comm,'_PID':str(pid),'_UID':'0','_GID':'0','_COMM':comm,'_EXE':'/usr/bin/'+comm,'_SYSTEMD_UNIT':name,'_SYSTEMD_SLICE':'system.slice','_CAP_EFFECTIVE':'1ffffffffff','MESSAGE':msg}
    d.update(kw); e(d)
e({'PRIORITY':'5','_TRANSPORT':'kernel','SYSLOG_FACILITY':'0','SYSLOG_IDENTIFIER':'kernel','MESSAGE':'Linux version 6.12.0 (build@example)','_SOURCE_MONOTONIC_TIMESTAMP':'0'})
e({'PRIORITY':'3','_TRANSPORT':'kernel','SYSLOG_FACILITY':'0','SYSLOG_IDENTIFIER':'kernel','MESSAGE':'EXT4-fs error (device sda1): bad block','_KERNEL_DEVICE':'b8:1','_KERNEL_SUBSYSTEM':'block','_SOURCE_MONOTONIC_TIMESTAMP':'123'})
e({'PRIORITY':'2','_TRANSPORT':'kernel','SYSLOG_FACILITY':'0','SYSLOG_IDENTIFIER':'kernel','MESSAGE':'Out of memory: killed process 4711 (java)'})
unit('init.scope','systemd',1,'Started kubelet.service - the node agent.','6','journal',UNIT='kubelet.service',CODE_FILE='src/core/job.c',CODE_LINE='712',MESSAGE_ID='39f53479d3a045ac8e11786248231fbf',JOB_TYPE='start')
unit('kubelet.service','kubelet',812,'I1121 10:00:00.004000     812 server.go:473] "Kubelet version" kubeletVersion="v1.34.1"')
unit('kubelet.service','kubelet',812,'E1121 10:00:00.005000     812 pod_workers.go:1301] "Error syncing pod, skipping" err="failed to \\"StartContainer\\" for \\"app\\"" pod="shop/cart-0"')
unit('containerd.service','containerd',640,'time="2026-11-21T10:00:00.006Z" level=warning msg="cleaning up after shim disconnected" id=0a1b2c namespace=k8s.io')
unit('containerd.service','containerd',640,'{"level":"debug","msg":"event published","topic":"/tasks/start"}')
unit('ssh.service','sshd',901,'Failed password for invalid user admin from 203.0.113.7 port 51122 ssh2','4','syslog',SYSLOG_FACILITY='4',SYSLOG_PID='901',SYSLOG_TIMESTAMP='Nov 21 10:00:00 ',_SOURCE_REALTIME_TIMESTAMP=str(t0+8500))
unit('session-12.scope','bash',950,'sudo: alice : TTY=pts/0 ; COMMAND=/usr/bin/id','5','syslog',_UID='1000',_SYSTEMD_OWNER_UID='1000')
unit('user@1000.service','app',951,'a unit of a user','6','stdout',_UID='1000',_SYSTEMD_USER_UNIT='app-demo.service')
unit('docker.service','dockerd',700,'line of a container','6','journal',CONTAINER_NAME='web',CONTAINER_ID='0a1b2c3d4e5f',CONTAINER_TAG='0a1b2c',IMAGE_NAME='nginx:1')
unit('app.service','app',1200,'first line\nsecond line\n\tat third.line(Main.java:3)','3','journal')
unit('app.service','app',1200,b'bytes \xff\xfe\x00 that are no text','6','stdout')
unit('app.service','app',1200,'')
e({'_TRANSPORT':'journal','_COMM':'job','_PID':'77','NOTE':'an entry without a message'})
e({'_TRANSPORT':'journal','MESSAGE':'of nobody at all','PRIORITY':'7'})
e({'_TRANSPORT':'journal','MESSAGE':'a unit that is only claimed','PRIORITY':'6','UNIT':'kubelet.service','_PID':'666','_COMM':'liar','_SYSTEMD_UNIT':'liar.service','LEVEL':'high','NAMESPACE':'kube-system'})
for i in range(24):
    unit('noisy@%d.service'%(i%4),'noisy',2000+i%4,'request %d took %d ms'%(i,i*7%113),str(i%8))
text=''.join('word%d '%(i%97) for i in range(400))
unit('app.service','app',1200,text)
unit('app.service','app',1200,'E1121 10:00:00.060000       1 main.go:1] '+'x'*3000)
unit('app.service','app',1200,'many fields','6','journal',**{'FIELD_%02d'%i:'value %d'%i for i in range(40)})
unit('app.service','app',1200,'a large field','6','journal',STACK='frame '*700)
if len(sys.argv)>2:
    unit('app.service','app',1200,'long '*300000)
