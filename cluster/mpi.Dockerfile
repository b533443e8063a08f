# The image for CPUs of docker/ with OpenSSH, by which mpirun starts processes in other pods: see README.md beside this.
# hadolint ignore=DL3006
FROM imori-cpu

USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client openssh-server \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*

# Kubeflow puts keys into .ssh that one job has and no other. They serve the machines, too, and belong to root, which
# sshd otherwise would not have. An ordinary user may not listen below port 1024.
RUN printf '%s\n' 'Port 2222' 'HostKey /home/learner/.ssh/id_rsa' 'StrictModes no' 'PidFile none' 'UsePAM no' \
        'PasswordAuthentication no' > /etc/ssh/sshd_learner \
    && printf '%s\n' 'Port 2222' 'StrictHostKeyChecking no' 'UserKnownHostsFile /dev/null' 'LogLevel ERROR' \
        > /etc/ssh/ssh_config.d/learner.conf
USER 1000
